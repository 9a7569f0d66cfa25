"""What PgBouncer is told. Pure text."""

from pathlib import Path

# More than any run opens.
MAX_CLIENTS = 6000


def configuration(
    directory: Path,
    *,
    database: str,
    server: str,
    port: int,
    pool_mode: str,
    pool_size: int,
    server_idle_s: int = 600,
    admin: str = "",
) -> str:
    """``server``: keywords of the connection to the server. ``directory`` holds ``users.txt`` and the certificate. But
    for what is given here and a silent log everything is as PgBouncer has it by itself."""
    return f"""
[databases]
{database} = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory / "users.txt"}
admin_users = {admin}
pool_mode = {pool_mode}
max_client_conn = {MAX_CLIENTS}
default_pool_size = {pool_size}
server_idle_timeout = {server_idle_s}
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = allow
client_tls_cert_file = {directory / "server.crt"}
client_tls_key_file = {directory / "server.key"}
log_connections = 0
log_disconnections = 0
"""

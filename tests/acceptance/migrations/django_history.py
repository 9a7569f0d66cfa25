"""``python -m tests.acceptance.migrations.django_history``: the migrations that Django's own applications come with.

Thirty of them, by as many authors, over ten years: renamed fields, data moved by Python, constraints, indexes. The
database is that of libpq's environment variables.
"""

import os

import django
from django.conf import settings
from django.core.management import call_command


def run() -> None:
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": os.environ["PGDATABASE"],
                "OPTIONS": {"options": "-c search_path=django,public"},
            }
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.admin",
            "django.contrib.sessions",
            "django.contrib.sites",
            "django.contrib.flatpages",
            "django.contrib.redirects",
        ],
        SITE_ID=1,
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("migrate", "auth", "0005", verbosity=0)
    call_command("migrate", verbosity=0)
    call_command("createcachetable", "cached", verbosity=0)


if __name__ == "__main__":
    run()

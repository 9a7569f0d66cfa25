/*
 * What an extension's background worker may do: it writes all the time, as the bootstrap superuser, and the server
 * begins it again when it has been ended. It needs a table public.beats (server text) in the database app.
 *
 * LIBRARY, its own path, is defined by whoever compiles it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

#define BEAT_MS 20

void _PG_init(void);
PGDLLEXPORT void beat(Datum argument);

void
_PG_init(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_name, "beating worker", sizeof worker.bgw_name);
	strlcpy(worker.bgw_type, "beating worker", sizeof worker.bgw_type);
	strlcpy(worker.bgw_library_name, LIBRARY, sizeof worker.bgw_library_name);
	strlcpy(worker.bgw_function_name, "beat", sizeof worker.bgw_function_name);
	RegisterBackgroundWorker(&worker);
}

/* An error ends it, with exit status 1. */
void
beat(Datum argument)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection("app", NULL, 0);
	for (;;)
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		SPI_execute("INSERT INTO public.beats (server) VALUES (current_setting('data_directory'))", false, 0);
		SPI_finish();
		PopActiveSnapshot();
		CommitTransactionCommand();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, BEAT_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

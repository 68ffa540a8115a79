/* SPDX-License-Identifier: Apache-2.0 */
/* A rule that is broken stops the process: tried in a child. Include cmocka.h first. */
#ifndef CASEMATE_TESTS_CHILD_H
#define CASEMATE_TESTS_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs the call in a child and tells whether it stopped at a broken rule. */
static inline bool child_stops(void (*call)(void))
{
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (!child) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		call();
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#endif

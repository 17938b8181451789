"""Execution of work: the thread that does it, the number of cores, and its early end.

Three kinds of work share the machine, and each has its own threads:

- Forward passes of a model run on the threads of `cores`: a thread for queries, one for short queries, one for
  passages, and several for many passages side by side. Callers wait in order. Torch has a team of OpenMP threads per
  calling thread, so few callers mean few teams.
- Search of an index runs in the thread of its caller, so that any number of callers share the cores. Only work of many
  milliseconds is split over the pool of `lanes`, which has a thread per core; its semaphore lets as many callers search
  at once.
- NumPy's matrix products run on one thread each while they are small: `blas` sets OpenBLAS to one thread, and puts the
  number back.

Three modules are about callers rather than work:

- `aio` takes blocking work off the event loop, for the asynchronous methods of the adapters.
- `cancel` stops work whose caller has gone on, after a time-out or a cancelled task. Long work asks before each batch.
- `forks` makes a fork wait until no thread is in the middle of a change, so that a forked child finds every lock free.

Every pool and semaphore belongs to a process id: a forked child has none of its parent's threads, and makes its own.
"""

// Package scheduler runs backups on schedules, and tells how they do.
//
// Start with [LoadConfig], which reads the configuration and reports all that
// is wrong in it at once, each with line and column; then [New] and
// [Daemon.Run], or [Daemon.Once] for one run now. [Serve] answers for health,
// metrics and the API.
//
// Each job's [Schedule] says when it is due; [Progress] keeps how far a job has
// come in its schedule, and [Progress.Look] is the one place that decides what
// runs, what is skipped and what is made up for after downtime.
//
// Those decisions are pure: they get the time as an argument and go by the wall
// clock only, so that suspend, restarts and changes of the clock are all the
// same to them.
package scheduler

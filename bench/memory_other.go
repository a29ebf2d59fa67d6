//go:build !linux

package main

import (
	"os"
	"syscall"
)

const memoryMeasured = "peak resident memory of getrusage: file-backed maps counted, so only an upper bound"

// watchMemory waits for done: only Linux tells a running process's anonymous
// memory.
func watchMemory(_ int, done <-chan struct{}) int64 {
	<-done
	return 0
}

// maxRSS is the peak resident memory of a process that has ended, bytes.
func maxRSS(p *os.ProcessState) int64 {
	usage, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return usage.Maxrss
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

const memoryMeasured = "peak of RssAnon in /proc/PID/status, read every 2 ms: file-backed maps left out"

// watchMemory polls the anonymous resident memory of pid until done and
// returns the most it saw, bytes. VmHWM, which the kernel keeps exactly, counts
// mapped files too, and a mapped database is not memory that a tool needs.
func watchMemory(pid int, done <-chan struct{}) int64 {
	var peak int64
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return peak
		case <-tick.C:
			peak = max(peak, rssAnon(pid))
		}
	}
}

// rssAnon reads the anonymous resident memory of pid, bytes; 0 once it is gone.
func rssAnon(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return parseRssAnon(status)
}

func parseRssAnon(status []byte) int64 {
	_, rest, found := bytes.Cut(status, []byte("\nRssAnon:"))
	if !found {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("kB"))
	kb, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

// maxRSS is not used: it counts mapped files.
func maxRSS(*os.ProcessState) int64 { return 0 }

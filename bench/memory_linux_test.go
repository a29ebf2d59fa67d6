package main

import (
	"os/exec"
	"testing"
	"time"
)

func TestMemoryOfAChild(t *testing.T) {
	s, err := timed(exec.Command("sleep", "0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if s.memory <= 0 || s.memory > 8<<20 {
		t.Errorf("sleep took %d bytes, want some, below 8 MiB", s.memory)
	}
	if s.elapsed < 100*time.Millisecond {
		t.Errorf("sleep 0.1 took %v", s.elapsed)
	}
}

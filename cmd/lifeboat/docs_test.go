package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentedCommands takes every line of README and docs that starts with
// lifeboat, and wants the command and its flags to be there.
func TestDocumentedCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/commands/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		joined := strings.ReplaceAll(string(text), "\\\n", " ")
		for line := range strings.SplitSeq(joined, "\n") {
			args, ok := documented(line)
			if !ok {
				continue
			}
			found++
			if err := parses(args); err != nil {
				t.Errorf("%s: %q: %v", page, line, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d lines found: are they still written as they were?", found)
	}
}

// documented returns the arguments of a line that runs lifeboat.
func documented(line string) ([]string, bool) {
	line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
	fields := strings.Fields(strings.NewReplacer("'", "", "&", "").Replace(line))
	if len(fields) < 2 || fields[0] != "lifeboat" || strings.Contains(line, "`") {
		return nil, false
	}
	return fields[1:], true
}

// parses looks the command up and reads its flags; the v2 client reads its own.
func parses(args []string) error {
	cmd, rest, err := newRootCommand(&env{Getenv: os.Getenv}).Find(args)
	if err != nil || args[0] == "v2" {
		return err
	}
	return cmd.ParseFlags(rest)
}

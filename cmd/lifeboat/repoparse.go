package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// timeLayouts are the ways to write a time; without a zone it is local.
var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}

// parseTime reads a time, or how long ago it was.
func parseTime(text string) (time.Time, error) {
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	ago, err := repository.ParseSpan(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time: want 2026-11-20T03:00:00Z, 2026-11-20 03:00 (local), 2026-11-20, or how long ago, such as 36h or 7d", text)
	}
	return ago.Before(time.Now()), nil
}

// readPassphrase reads the first line of a file; no file is no passphrase.
func readPassphrase(file string) (repository.Secret, error) {
	if file == "" {
		return "", nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("--passphrase-file %s: its first line is empty", file)
	}
	return repository.Secret(line), nil
}

// ago writes how long ago something was, as people say it.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < 0:
		return "in the future"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// errNoBackups is for a repository that has none of what was asked for.
var errNoBackups = errors.New("no backups")

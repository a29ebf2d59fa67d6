package datadir

import (
	"slices"
	"strings"
	"testing"
)

func TestFor(t *testing.T) {
	v2 := Facts{Origin: R23, ClusterVersion: R23, Snapshot: true, BareRecord: true, V2Data: "/a", V2Entries: true, V2Others: true}
	v2log := v2
	v2log.Snapshot, v2log.BareRecord = false, false
	old := Facts{Origin: R34, ClusterVersion: R34, Snapshot: true, BareRecord: true, Backend: true, Padded: true,
		V2Entries: true, V2Others: true, Mark: true}
	unmarked := old
	unmarked.ConfUnmarked = true
	newer := Facts{Origin: R37, ClusterVersion: R37, StorageVersion: R37, Backend: true, Padded: true}
	fresh := newer
	fresh.Fresh = true
	for name, c := range map[string]struct {
		facts   Facts
		release Release
		steps   []Step
		refused string
	}{
		"2.3 stays":              {v2, R23, nil, ""},
		"2.3 to 3.4":             {v2, R34, []Step{StepBackend, StepVersion}, ""},
		"2.3 log alone to 3.5":   {v2log, R35, []Step{StepVersion}, ""},
		"2.3 to 3.6":             {v2, R36, nil, "v2 user data (/a)"},
		"empty 2.3 to 3.6":       {Facts{Origin: R23, ClusterVersion: R23}, R36, nil, "pass through"},
		"3.4 stays":              {old, R34, nil, ""},
		"3.4 to 3.6":             {old, R36, []Step{StepBlankV2}, ""},
		"3.4 to 3.7":             {old, R37, []Step{StepBlankV2, StepRecord}, ""},
		"3.4 to 2.3":             {old, R23, nil, "backend"},
		"conf changes unapplied": {unmarked, R36, []Step{StepBlankV2, StepRaiseIndex}, ""},
		"3.7 to 3.6":             {newer, R36, nil, "storage version is 3.7"},
		"3.7 to 3.5":             {newer, R35, nil, "storage version is 3.7"},
		"3.7, fresh log, to 3.6": {fresh, R36, nil, "storage version is 3.7"},
		"3.7, fresh log, to 3.5": {fresh, R35, nil, ""},
		"3.7, fresh log, to 3.4": {fresh, R34, nil, "storage version is 3.7"},
	} {
		t.Run(name, func(t *testing.T) {
			steps, err := c.facts.For(c.release)
			if !slices.Equal(steps, c.steps) {
				t.Errorf("steps %q, want %q", steps, c.steps)
			}
			if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("error %v, want %q", err, c.refused)
			}
		})
	}
}

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]Release{"3.5": R35, "v3.5": R35, "3.5.33": R35, "2.3.7": R23} {
		if got, err := ParseRelease(text); err != nil || got != want {
			t.Errorf("%q: %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "3", "3.8", "4.0", "three", "1.5"} {
		if got, err := ParseRelease(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

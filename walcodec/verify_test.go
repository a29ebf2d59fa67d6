package walcodec

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// TestVerifyReportsGaps leaves indexes out within a segment and between two.
func TestVerifyReportsGaps(t *testing.T) {
	one := func(index uint64) save {
		return save{entries: []Entry{{Term: 1, Index: index, Data: make([]byte, 100)}}}
	}
	tests := []struct {
		name    string
		indexes []uint64
		want    [][2]uint64
	}{
		{"none", []uint64{1, 2, 3, 2, 3, 4}, nil},
		{"one", []uint64{1, 2, 4, 5}, [][2]uint64{{2, 4}}},
		{"after going back", []uint64{1, 2, 3, 2, 4, 5}, [][2]uint64{{2, 4}}},
		{"start", []uint64{7, 8}, nil},
		{"several", []uint64{1, 3, 4, 9, 10}, [][2]uint64{{1, 3}, {4, 9}}},
	}
	for _, test := range tests {
		for _, size := range []int64{1, 200, 1 << 20} {
			var saves []save
			for _, index := range test.indexes {
				saves = append(saves, one(index))
			}
			log := memory{}
			writeSaves(t, log, saves, LogWriterOptions{SegmentSize: size})
			r, err := Verify(context.Background(), log.fs(), VerifyOptions{})
			must(t, err)
			must(t, r.Err())
			var got [][2]uint64
			for _, g := range r.Gaps {
				got = append(got, [2]uint64{g.After, g.Index})
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s, cut at %d bytes: gaps %v, want %v", test.name, size, got, test.want)
			}
			if first, last := test.indexes[0], test.indexes[len(test.indexes)-1]; r.FirstIndex != first || r.LastIndex != last {
				t.Errorf("%s: entries %d to %d, want %d to %d", test.name, r.FirstIndex, r.LastIndex, first, last)
			}
		}
	}
}

// TestVerifySeams joins segments that do not belong together.
func TestVerifySeams(t *testing.T) {
	for name, change := range map[string]func(log memory, segments []Segment){
		"records missing at the end of a segment": func(log memory, segments []Segment) {
			f := log[segments[0].Name]
			f.Data = f.Data[:len(f.Data)-32]
		},
		"first value not 0": func(log memory, segments []Segment) {
			log[segments[0].Name].Data[11] = 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := smallLog(t, FramingPadded)
			segments, err := Segments(log.fs())
			must(t, err)
			change(log, segments)
			r, err := Verify(context.Background(), log.fs(), VerifyOptions{})
			must(t, err)
			var damage *CorruptError
			if !errors.As(r.Err(), &damage) {
				t.Errorf("found %v", r.Err())
			}
			if _, err := readAll(t, log.fs(), LogOptions{}); !errors.As(err, &damage) {
				t.Errorf("read in order, ended with %v", err)
			}
		})
	}
}

// TestVerifyAgreesWithReading compares what Verify and a Log in order find in
// logs with one bit changed.
func TestVerifyAgreesWithReading(t *testing.T) {
	log := smallLog(t, FramingPlain)
	for name, f := range log {
		for bit := 0; bit < 8*len(f.Data); bit += 7 {
			f.Data[bit/8] ^= 1 << (bit % 8)
			_, err := readAll(t, streams{log.fs()}, LogOptions{})
			r, verr := Verify(context.Background(), streams{log.fs()}, VerifyOptions{})
			must(t, verr)
			if errors.Is(err, ErrTorn) != errors.Is(r.Err(), ErrTorn) || r.Err() == nil {
				t.Errorf("%s: bit %d: verified %v, read %v", name, bit, r.Err(), err)
			}
			f.Data[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestVerifyVisits compares the entries visited to those read in order.
func TestVerifyVisits(t *testing.T) {
	log := memory{}
	writeSaves(t, log, randomSaves(rand.New(rand.NewPCG(14, 14)), 100), LogWriterOptions{SegmentSize: 50 << 10})
	segments, err := Segments(log.fs())
	must(t, err)
	visited := make([][]string, len(segments))
	_, err = Verify(context.Background(), log.fs(), VerifyOptions{Visit: func(at Position, e Entry) error {
		visited[at.Seq] = append(visited[at.Seq], fmt.Sprint(at, e))
		return nil
	}})
	must(t, err)
	var want []string
	walkEntries(t, log, func(at Position, e Entry) { want = append(want, fmt.Sprint(at, e)) })
	if got := slices.Concat(visited...); !slices.Equal(got, want) {
		t.Errorf("visited %d entries, %d are there", len(got), len(want))
	}
	stop := errors.New("stop")
	if _, err := Verify(context.Background(), log.fs(), VerifyOptions{Visit: func(Position, Entry) error { return stop }}); !errors.Is(err, stop) {
		t.Errorf("a visit's error became %v", err)
	}
}

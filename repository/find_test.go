package repository

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	repo, store := newRepository(t)
	saveAt := func(cluster, started string, labels map[string]string) *Backup {
		return mustSave(t, repo, cluster, contents{"db": []byte(started)}, DraftOptions{Now: clockAt(started), Labels: labels})
	}
	prove := func(b *Backup, when string, level Level, result Result) {
		if err := repo.AddProof(t.Context(), b, Proof{Time: clockAt(when)(), Level: level, Result: result}); err != nil {
			t.Fatal(err)
		}
	}
	b1 := saveAt("prod", "2026-01-01T00:00:00Z", map[string]string{"from": "cron"})
	b2 := saveAt("prod", "2026-01-02T00:00:00Z", map[string]string{"from": "cron", "x": "y"})
	b3 := saveAt("prod", "2026-01-03T00:00:00Z", nil)
	b4 := saveAt("prod", "2026-01-04T00:00:00Z", nil)
	b5 := saveAt("prod", "2026-01-04T06:00:00Z", nil)
	saveAt("test", "2026-01-02T00:00:01Z", nil)
	prove(b1, "2026-02-01T00:00:00Z", Boot, ResultPassed)
	prove(b2, "2026-02-01T00:00:00Z", Structure, ResultPassed)
	prove(b4, "2026-02-01T00:00:00Z", Digest, ResultPassed)
	prove(b4, "2026-02-02T00:00:00Z", Digest, ResultDamaged)
	if err := store.Delete(t.Context(), b5.key("db.zst")); err != nil {
		t.Fatal(err)
	}
	ambiguous, nothing := ErrAmbiguous, ErrNotExist
	for name, c := range map[string]struct {
		sel  Selector
		want *Backup
		err  error
		text string
	}{
		"latest":              {Selector{Cluster: "prod"}, b3, nil, "the newest of prod, finished 2026-01-03T00:00:00Z, not verified; passed over: " + b5.ID() + ", parts of it are missing or cut; " + b4.ID() + ", found damaged on 2026-02-02"},
		"latest, named":       {Selector{Cluster: "prod", ID: Latest}, b3, nil, "the newest of prod"},
		"latest verified":     {Selector{Cluster: "prod", ID: LatestVerified}, b2, nil, "verified 2026-02-01T00:00:00Z: structure; passed over: "},
		"before":              {Selector{Cluster: "prod", Before: clockAt("2026-01-02T23:59:59Z")()}, b2, nil, "that was finished by 2026-01-02T23:59:59Z"},
		"at that time":        {Selector{Cluster: "prod", Before: clockAt("2026-01-02T00:00:00Z")()}, b2, nil, ""},
		"before all":          {Selector{Cluster: "prod", Before: clockAt("2025-01-02T00:00:00Z")()}, nil, nothing, "there are 5, from " + b1.ID() + " to " + b5.ID()},
		"label":               {Selector{Cluster: "prod", Labels: map[string]string{"from": "cron"}}, b2, nil, "with from=cron"},
		"label and before":    {Selector{Cluster: "prod", Labels: map[string]string{"from": "cron"}, Before: clockAt("2026-01-01T23:00:00Z")()}, b1, nil, ""},
		"both labels":         {Selector{Cluster: "prod", Labels: map[string]string{"from": "cron", "x": "y"}}, b2, nil, ""},
		"another label":       {Selector{Cluster: "prod", Labels: map[string]string{"from": "me"}}, nil, nothing, "with from=me"},
		"no cluster named":    {Selector{}, nil, ambiguous, "name one: prod, test"},
		"no such cluster":     {Selector{Cluster: "prd"}, nil, nothing, "there are prod, test"},
		"id":                  {Selector{Cluster: "prod", ID: b4.ID()}, b4, nil, "named by its id"},
		"id, any cluster":     {Selector{ID: b1.ID()}, b1, nil, "named by its id"},
		"prefix":              {Selector{Cluster: "prod", ID: "20260102"}, b2, nil, "the only one whose id begins with 20260102"},
		"prefix of two":       {Selector{ID: "20260102"}, nil, ambiguous, b2.ID() + " of prod; 20260102T000001Z-"},
		"prefix of all":       {Selector{ID: "2"}, nil, ambiguous, "and 1 more"},
		"prefix of none":      {Selector{ID: "2027"}, nil, nothing, "there are 6, from "},
		"no id":               {Selector{ID: "yesterday"}, nil, nothing, "or an id, YYYYMMDDThhmmssZ-xxxxxx"},
		"id, too late":        {Selector{ID: b2.ID(), Before: clockAt("2026-01-01T00:00:00Z")()}, nil, nothing, "was finished 2026-01-02T00:00:00Z"},
		"id, other label":     {Selector{ID: b1.ID(), Labels: map[string]string{"x": "y"}}, nil, nothing, "map[from:cron]"},
		"id, wrong cluster":   {Selector{ID: b1.ID(), Cluster: "test"}, nil, nothing, "there is only "},
		"a cluster that isnt": {Selector{Cluster: "a/b"}, nil, nil, `cluster name "a/b"`},
	} {
		t.Run(name, func(t *testing.T) {
			b, why, err := repo.Find(t.Context(), c.sel)
			if c.want == nil {
				if err == nil || !errors.Is(err, c.err) && c.err != nil || !strings.Contains(err.Error(), c.text) {
					t.Fatalf("%v, %v; want %q", b, err, c.text)
				}
				return
			}
			if err != nil || b.ID() != c.want.ID() || !strings.Contains(why, c.text) {
				t.Fatalf("%v, %v\n%s\nwant %s\n%s", b, err, why, c.want.ID(), c.text)
			}
		})
	}
}

func TestFindTellsWhatIsThere(t *testing.T) {
	repo, store := newRepository(t)
	_, _, err := repo.Find(t.Context(), Selector{})
	if !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "there is none at all") {
		t.Error(err)
	}
	d := begin(t, repo, DraftOptions{})
	if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	_, _, err = repo.Find(t.Context(), Selector{})
	if !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "nothing but 1 unfinished") {
		t.Error(err)
	}
	_, err = repo.Backup(t.Context(), "", d.ID())
	if !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "has no manifest") {
		t.Error(err)
	}
	b, err := d.Commit(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	_ = store.Corrupt(b.key(manifestName), func(b []byte) []byte { return b[1:] })
	var damage *DamageError
	if _, err := repo.Backup(t.Context(), "prod", d.ID()[:10]); !errors.As(err, &damage) {
		t.Error(err)
	}
	_, _, err = repo.Find(t.Context(), Selector{})
	if !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "manifests that can't be read: "+b.ID()) {
		t.Error(err)
	}
}

// A backup that is being removed is not what anybody wants, but one whose
// removal died long ago is.
func TestFindPassesOverWhatIsBeingRemoved(t *testing.T) {
	for ago, want := range map[time.Duration]bool{time.Minute: false, 100 * time.Hour: true} {
		repo, store := newRepository(t)
		b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{})
		m := PruneMark{Format: Format, Cluster: "prod", ID: b.ID(), Time: stamp(time.Now().Add(-ago))}
		if err := putRecord(t.Context(), store, b.key(prunedDir+"x.json"), kindPruned, m); err != nil {
			t.Fatal(err)
		}
		_, _, err := repo.Find(t.Context(), Selector{})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "it is being removed") {
			t.Errorf("marked %v ago: %v", ago, err)
		}
	}
}

// A proof that can't be read may have found damage: one since the last that
// passed takes that back, and an older one does not. Either is told, and hides
// nothing.
func TestFindTellsOfAProofThatCannotBeRead(t *testing.T) {
	for when, proven := range map[string]bool{"2026-01-31T00:00:00Z": true, "2026-02-01T00:00:00Z": false, "2026-02-02T00:00:00Z": false} {
		repo, store := newRepository(t)
		b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{})
		if err := repo.AddProof(t.Context(), b, Proof{Time: clockAt("2026-02-01T00:00:00Z")(), Level: Boot, Result: ResultPassed}); err != nil {
			t.Fatal(err)
		}
		key := b.key(proofDir + newID(clockAt(when)()) + ".json")
		place(t, store, key, "{")

		l, err := repo.List(t.Context(), "prod")
		if err != nil || len(l.Backups) != 1 || len(l.Damaged) != 1 || l.Damaged[0].Key != key {
			t.Fatalf("%s: listed %+v, %v", when, l, err)
		}
		if got := l.Backups[0]; (got.Proven(Digest) != nil) != proven || len(got.Unread) != 1 || len(got.Proofs) != 1 {
			t.Errorf("%s: it is proven by %+v, want %v", when, got.Proven(Digest), proven)
		}
		for _, id := range []string{Latest, b.ID()} {
			if _, why, err := repo.Find(t.Context(), Selector{ID: id}); err != nil || !strings.Contains(why, "a proof of it can't be read: "+key) {
				t.Errorf("%s: %s is found because %q, %v", when, id, why, err)
			}
		}
		_, why, err := repo.Find(t.Context(), Selector{ID: LatestVerified})
		if told := why + errorText(err); (err == nil) != proven || !strings.Contains(told, "a proof of it can't be read") {
			t.Errorf("%s: the newest verified: %q", when, told)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

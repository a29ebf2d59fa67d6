package repository

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// checkCopy wants a backup to be the same in two stores, object for object.
func checkCopy(t testing.TB, from, to storage.Store, b *Backup) {
	t.Helper()
	for _, key := range b.objects() {
		want, err := readAll(t.Context(), from, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(t.Context(), to, key)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is another there, %v", key, err)
		}
	}
	checkWhole(t, to)
}

// objectsIn prints what a store holds, and from when.
func objectsIn(t testing.TB, s storage.Store) string {
	t.Helper()
	var text strings.Builder
	for o, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&text, o.Key, o.Size, o.Modified)
	}
	return text.String()
}

func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		if err := c.from.Hold(t.Context(), c.backup, "stays here"); err != nil {
			t.Fatal(err)
		}
		if err := c.from.AddProof(t.Context(), c.backup, Proof{Time: time.Now(), Level: Boot, Result: ResultPassed, Tool: "test"}); err != nil {
			t.Fatal(err)
		}
		_, total := c.backup.Size()
		var last int64
		progress := func(done, of int64) {
			if done < last || of != total {
				t.Errorf("%d of %d bytes, after %d; want %d in all", done, of, last, total)
			}
			last = done
		}
		if err := Copy(t.Context(), c.from, c.to, c.backup, progress); err != nil {
			t.Fatal(err)
		}
		if last != total {
			t.Errorf("it ended at %d of %d bytes", last, total)
		}
		there := reread(t, c.to, c.backup)
		if there.Hold != nil || there.Proofs != nil || there.Digest() != c.backup.Digest() {
			t.Errorf("hold %v, proofs %v, manifest %s", there.Hold, there.Proofs, there.Digest())
		}
		c.backup.Hold = nil
		checkCopy(t, c.source, c.target, c.backup)
		before := objectsIn(t, c.target)
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Errorf("again: %v", err)
		}
		if after := objectsIn(t, c.target); after != before {
			t.Errorf("again: %s, want %s", after, before)
		}
	})
}

func TestCopyRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, c copyScene)
		want   func(err error) bool
	}{
		{"the id is another backup's", func(t *testing.T, c copyScene) {
			m := c.backup.Manifest
			m.Tool = "another"
			if err := putRecord(t.Context(), c.target, c.backup.key(manifestName), kindManifest, m); err != nil {
				t.Fatal(err)
			}
		}, func(err error) bool { return errors.Is(err, ErrTaken) }},
		{"what is there can't be read", func(t *testing.T, c copyScene) {
			place(t, c.target, c.backup.key(manifestName), "{")
		}, func(err error) bool { return isDamage(err) && strings.Contains(err.Error(), "can't be read") }},
		{"no part", func(_ *testing.T, c copyScene) { c.backup.Manifest.Parts = nil }, isDamage},
		{"a part is damaged", func(t *testing.T, c copyScene) {
			spoil(t, c.source, c.backup.key(c.backup.Manifest.Parts[0].Object), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, isDamage},
		{"a part is cut", func(t *testing.T, c copyScene) {
			spoil(t, c.source, c.backup.key(c.backup.Manifest.Parts[2].Object), func(b []byte) []byte { return b[:len(b)-1] })
		}, isDamage},
		{"a part is longer", func(t *testing.T, c copyScene) {
			spoil(t, c.source, c.backup.key(c.backup.Manifest.Parts[2].Object), func(b []byte) []byte { return append(b, 0) })
		}, isDamage},
		{"a part is gone", func(t *testing.T, c copyScene) {
			if err := c.source.Delete(t.Context(), c.backup.key(c.backup.Manifest.Parts[1].Object)); err != nil {
				t.Fatal(err)
			}
		}, isDamage},
		{"a proof found damage", func(t *testing.T, c copyScene) {
			if err := c.from.AddProof(t.Context(), c.backup, Proof{Time: time.Now(), Level: Structure, Result: ResultDamaged, Tool: "test"}); err != nil {
				t.Fatal(err)
			}
		}, func(err error) bool {
			return isDamage(err) && strings.Contains(err.Error(), "found damaged by structure")
		}},
		{"the target is removing it", func(t *testing.T, c copyScene) {
			if _, err := c.to.putMark(t.Context(), "c", c.backup.ID()); err != nil {
				t.Fatal(err)
			}
		}, func(err error) bool { return errors.Is(err, ErrPruning) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newCopyScene(t)
				c.change(t, s)
				manifest, before := s.backup.key(manifestName), objectsIn(t, s.target)
				err := Copy(t.Context(), s.from, s.to, s.backup, nil)
				if !c.want(err) {
					t.Errorf("copy: %v", err)
				}
				if strings.Contains(before, manifest) != strings.Contains(objectsIn(t, s.target), manifest) {
					t.Error("the manifest there came or went")
				}
			})
		})
	}
}

func spoil(t testing.TB, store *storagetest.Memory, key string, change func([]byte) []byte) {
	t.Helper()
	if err := store.Corrupt(key, change); err != nil {
		t.Fatal(err)
	}
}

// TestCopyResumes has the target hold what an earlier try left.
func TestCopyResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		parts := slices.Clone(c.backup.Manifest.Parts)
		for _, change := range []func(b []byte) []byte{
			func(b []byte) []byte { return b },
			func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			func(b []byte) []byte { return b[:len(b)/2] },
		} {
			target := cloneMemory(t, c.target)
			for _, p := range parts {
				data, err := readAll(t.Context(), c.source, c.backup.key(p.Object))
				if err != nil {
					t.Fatal(err)
				}
				place(t, target, c.backup.key(p.Object), string(change(data)))
			}
			if err := Copy(t.Context(), c.from, &Repository{store: target, head: c.to.head}, c.backup, nil); err != nil {
				t.Fatal(err)
			}
			checkCopy(t, c.source, target, c.backup)
		}
	})
}

// TestCopyMends has the target hold a manifest, and not all of its parts.
func TestCopyMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Fatal(err)
		}
		parts := c.backup.Manifest.Parts
		for name, lost := range map[string][]Part{"one": parts[1:2], "all": parts} {
			target := cloneMemory(t, c.target)
			to := &Repository{store: target, head: c.to.head}
			for _, p := range lost {
				if err := target.Delete(t.Context(), c.backup.key(p.Object)); err != nil {
					t.Fatal(err)
				}
			}
			if len(lost) < len(parts) {
				spoil(t, target, c.backup.key(parts[0].Object), func(b []byte) []byte { return b[:len(b)/2] })
			}
			if err := Copy(t.Context(), c.from, to, c.backup, nil); err != nil {
				t.Errorf("%s lost: %v", name, err)
			}
			checkCopy(t, c.source, target, c.backup)
		}
	})
}

// TestCopyFails meets each fault at each operation of either side, and then
// tries again.
func TestCopyFails(t *testing.T) {
	kinds := []storagetest.Kind{
		storagetest.Fail, storagetest.LoseAnswer, storagetest.Cut, storagetest.End, storagetest.Repeat, storagetest.Crash, storagetest.CrashAfter,
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCopyScene(t)
				fault := storagetest.Fault{Kind: kind, After: 3}
				for s := range storagetest.Each(fault, func() storage.Store { return cloneMemory(t, c.target) }) {
					err := Copy(t.Context(), c.from, &Repository{store: s, head: c.to.head}, c.backup, nil)
					c.checkAfterFault(t, s.Inner(), fmt.Sprint("target: ", s.Met()), err)
				}
				for s := range storagetest.Each(fault, func() storage.Store { return c.source }) {
					target := cloneMemory(t, c.target)
					err := Copy(t.Context(), &Repository{store: s, head: c.from.head}, &Repository{store: target, head: c.to.head}, c.backup, nil)
					c.checkAfterFault(t, target, fmt.Sprint("source: ", s.Met()), err)
				}
			})
		})
	}
}

func (c copyScene) checkAfterFault(t *testing.T, target storage.Store, met string, err error) {
	t.Helper()
	there := checkWhole(t, target).find(c.backup.ID())
	if err == nil && there == nil {
		t.Errorf("%s: it said that it is copied", met)
	}
	if isDamage(err) {
		t.Errorf("%s: %v", met, err)
	}
	if err := Copy(t.Context(), c.from, &Repository{store: target, head: c.to.head}, c.backup, nil); err != nil {
		t.Errorf("%s, tried again: %v", met, err)
	}
	checkCopy(t, c.source, target, c.backup)
}

// TestCopyTakesBack has parts go once they were committed.
func TestCopyTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Fatal(err)
		}
		again := &copying{to: c.to, b: c.backup}
		if err := again.takeBack(t.Context()); err != nil {
			t.Errorf("it is whole: %v", err)
		}
		checkCopy(t, c.source, c.target, c.backup)

		part := c.backup.key(c.backup.Manifest.Parts[1].Object)
		if err := c.target.Delete(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		held := reread(t, c.to, c.backup)
		if err := c.to.Hold(t.Context(), held, "evidence"); err != nil {
			t.Fatal(err)
		}
		if err := again.takeBack(t.Context()); !isDamage(err) {
			t.Errorf("it is held: %v", err)
		}
		if err := c.to.Release(t.Context(), held); err != nil {
			t.Fatal(err)
		}
		if err := again.takeBack(t.Context()); !errors.Is(err, ErrNotExist) {
			t.Errorf("it is not whole: %v", err)
		}
		if left := keysBelow(t, c.target, c.backup.key("")); len(left) > 0 {
			t.Errorf("left is %q", left)
		}
		if err := again.takeBack(t.Context()); !errors.Is(err, ErrNotExist) {
			t.Errorf("it is gone: %v", err)
		}
	})
}

func TestCopyTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		slow := storagetest.NewFaulty(c.source, storagetest.At(2, storagetest.Fault{Delay: MaxSave + time.Minute}))
		err := Copy(t.Context(), &Repository{store: slow, head: c.from.head}, c.to, c.backup, nil)
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("copy: %v", err)
		}
		if checkWhole(t, c.target).find(c.backup.ID()) != nil {
			t.Error("it is there")
		}
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

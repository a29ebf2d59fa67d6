package fs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// victimEnv tells this test binary to be the process that is killed, in which
// directory and for the how manieth time.
const victimEnv = "LIFEBOAT_TEST_VICTIM"

func TestMain(m *testing.M) {
	if order := os.Getenv(victimEnv); order != "" {
		fmt.Fprintln(os.Stderr, workUntilKilled(order))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// step is one thing that the victim does.
type step struct {
	key    string
	id     int // of what it puts, 0 to delete
	create bool
}

// stepAt is the nth thing that it does in a round.
func stepAt(round, n int) step {
	if n%4 == 0 {
		return step{key: stepAt(round, n-1).key}
	}
	if n%7 == 0 {
		return step{fmt.Sprintf("once/%d/%d", round, n), round<<20 + n, true}
	}
	return step{fmt.Sprintf("%d/%d/object", n%3, n%5), round<<20 + n, false}
}

func (st step) do(s *Store) error {
	if st.id == 0 {
		return s.Delete(context.Background(), st.key)
	}
	_, err := s.Put(context.Background(), st.key, bytes.NewReader(witness(st)), storage.PutOptions{CreateOnly: st.create})
	return err
}

func (st step) record(state map[string]int) {
	state[st.key] = st.id
	if st.id == 0 {
		delete(state, st.key)
	}
}

// workUntilKilled prints a line after each step.
func workUntilKilled(order string) error {
	dir, count, _ := strings.Cut(order, "#")
	var round int
	if _, err := fmt.Sscan(count, &round); err != nil {
		return err
	}
	s, err := Open(dir)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := stepAt(round, n).do(s); err != nil {
			return err
		}
		fmt.Println("done")
	}
}

// witness is an object that tells whether it is whole, and which it is.
func witness(st step) []byte {
	body := append(fmt.Appendf(nil, "%s %d\n", st.key, st.id), make([]byte, st.id*7919%700_000)...)
	digest := sha256.Sum256(body)
	return append(body, digest[:]...)
}

// witnessed returns which object of a key data is.
func witnessed(key string, data []byte) (id int, err error) {
	body := data[:max(0, len(data)-sha256.Size)]
	if digest := sha256.Sum256(body); !bytes.Equal(digest[:], data[len(body):]) {
		return 0, fmt.Errorf("%s: %d bytes are not what was put", key, len(data))
	}
	var own string
	if _, err := fmt.Fscan(bytes.NewReader(body), &own, &id); err != nil {
		return 0, err
	}
	if own != key {
		return 0, fmt.Errorf("%s holds what was put under %s", key, own)
	}
	return id, nil
}

// A process is killed at any moment: what is seen is whole, what it said was
// done is done, at most one step more, and a sweep finds what is left.
func TestKilledAtWork(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	state := map[string]int{} // the id that each key holds
	leftovers := 0
	for round := range rounds {
		steps := killAtWork(t, fmt.Sprintf("%s#%d", dir, round+1))
		s := openStore(t, dir)
		for n := range steps {
			stepAt(round+1, n+1).record(state)
		}
		after := maps.Clone(state)
		stepAt(round+1, steps+1).record(after)
		stored := readWitnesses(t, s)
		if !maps.Equal(stored, state) && !maps.Equal(stored, after) {
			t.Fatalf("round %d, killed after step %d: %v, want %v or %v", round+1, steps, stored, state, after)
		}
		state = stored
		leftovers += sweepAll(t, s)
	}
	t.Logf("%d of %d kills left a temporary file", leftovers, rounds)
}

// killAtWork runs a process, kills it some time after its first step, and
// returns how many steps it reported.
func killAtWork(t *testing.T, order string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+order)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	_, firstErr := r.ReadString('\n')
	time.Sleep(rand.N(60 * time.Millisecond))
	killErr := cmd.Process.Kill()
	rest, err := io.ReadAll(r)
	_ = cmd.Wait() // says that it was killed
	if firstErr != nil || killErr != nil || err != nil {
		t.Fatal(firstErr, killErr, err)
	}
	return 1 + bytes.Count(rest, []byte("\n"))
}

func readWitnesses(t *testing.T, s *Store) map[string]int {
	t.Helper()
	stored := map[string]int{}
	for obj, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := get(s, obj.Key)
		if err != nil {
			t.Fatal(err)
		}
		if stored[obj.Key], err = witnessed(obj.Key, []byte(data)); err != nil {
			t.Error(err)
		}
	}
	return stored
}

// sweepAll removes what a killed process left, and returns how much it was.
func sweepAll(t *testing.T, s *Store) int {
	t.Helper()
	swept, err := s.Sweep(t.Context(), "", later())
	if err != nil {
		t.Fatal(err)
	}
	if temps, err := filepath.Glob(filepath.Join(s.dir, "*/*/*"+tempMark+"*")); err != nil || len(temps) > 0 {
		t.Errorf("after a sweep there are still %q, %v", temps, err)
	}
	return swept
}

// later is after anything that a test does.
func later() time.Time { return time.Now().Add(time.Hour) }

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dataset is generated data that rows work on.
type dataset struct {
	name string
	// bytes is about what it takes on disk at full scale.
	bytes    int64
	generate func(dir string, scale float64) error
}

// The datasets. Sizes at full scale are those of the table in
// docs/performance.md.
var (
	v3Dir = dataset{name: "v3", bytes: 1_500_000_000, generate: generateV3}
	v2Dir = dataset{name: "v2", bytes: 370_000_000, generate: generateV2}
	// snapshotFile is a folder with a snapshot as `etcdctl snapshot save`
	// writes it, and a copy without its checksum.
	snapshotFile = dataset{name: "snapshot", bytes: 1_660_000_000, generate: generateSnapshot}
)

// dataVersion changes whenever the generators make something else, so that
// kept data is not taken for it.
const dataVersion = 1

// recipe is kept beside generated data and says what made it.
type recipe struct {
	Version int     `json:"version"`
	Scale   float64 `json:"scale"`
}

// ready makes sure that the dataset is in work, generating it unless the same
// recipe has made it before, and returns its data dir.
func (d dataset) ready(work string, scale float64, talk io.Writer) (string, error) {
	dir := filepath.Join(work, d.name+".etcd")
	want := recipe{Version: dataVersion, Scale: scale}
	if made, err := readRecipe(dir); err == nil && made == want {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	fmt.Fprintf(talk, "generating %s data, about %s\n", d.name, size(int64(float64(d.bytes)*scale)))
	if err := d.generate(dir, scale); err != nil {
		return "", fmt.Errorf("generate %s data: %w", d.name, err)
	}
	return dir, writeRecipe(dir, want)
}

// The recipe stands beside the data dir, not in it: contenders copy the dir.
func recipePath(dir string) string { return dir + ".json" }

func readRecipe(dir string) (recipe, error) {
	var r recipe
	data, err := os.ReadFile(recipePath(dir))
	if err != nil {
		return r, err
	}
	if _, err := os.Stat(dir); err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

func writeRecipe(dir string, r recipe) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(recipePath(dir), append(data, '\n'), 0o644)
}

// checkSpace refuses to start when dir's disk has no room for the data of the
// rows and for one copy of the largest, and says what it takes.
func checkSpace(dir string, chosen []row, scale float64, talk io.Writer) error {
	need := spaceFor(chosen, scale)
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("%s has %s free: the data takes up to %s (try --keep-data on another disk, or --scale)", dir, size(free), size(need))
	}
	fmt.Fprintf(talk, "takes up to %s in %s (%s free)\n", size(need), dir, size(free))
	return nil
}

// spaceFor is what the data and one output take, bytes, with a fifth to spare.
func spaceFor(chosen []row, scale float64) int64 {
	sets := map[string]int64{}
	var largest, sum int64
	for _, r := range chosen {
		sets[r.data.name] = r.data.bytes
		largest = max(largest, r.data.bytes)
	}
	for _, n := range sets {
		sum += n
	}
	return int64(float64(sum+largest) * scale * 1.2)
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// dirSize sums up the sizes of the files in dir, bytes; 0 if it does not exist.
func dirSize(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return sum, err
}

// warm reads every file of dir once, so that it is in the page cache.
func warm(dir string) error {
	return eachFile(dir, func(f *os.File) error {
		_, err := io.Copy(struct{ io.Writer }{io.Discard}, f)
		return err
	})
}

// eachFile opens the regular files in dir, one after the other.
func eachFile(dir string, visit func(*os.File) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return visit(f)
	})
}

// size prints a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
}

package scheduler

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// Reload puts a new configuration in force: jobs come, go and change, and runs
// under way go on as they began. One that is wrong is refused, and the old one
// stays. What the HTTP server, the log and the state dir are like can't change
// while the daemon runs.
func (d *Daemon) Reload(cfg *Config) error {
	if err := cfg.Check(); err != nil {
		d.refuse(err)
		return err
	}
	d.mu.Lock()
	if old := d.cfg; old.StateDir != cfg.StateDir || old.HTTP != cfg.HTTP || old.Log != cfg.Log {
		d.log.Warn("state-dir, http and log stay as they are until the daemon is restarted")
	}
	d.cfg, d.loaded, d.problem = cfg, time.Now().Round(0), ""
	var tracks []*track
	for _, t := range d.tracks {
		tracks = append(tracks, t)
	}
	if d.start != nil {
		for key := range tracksOf(cfg) {
			if d.tracks[key] == nil {
				d.add(key)
			}
		}
	}
	d.mu.Unlock()
	for _, t := range tracks {
		t.follow(cfg)
		t.nudge()
		d.refresh(t.key.job)
	}
	d.log.Info("configuration loaded", "file", cfg.file, "jobs", len(cfg.Jobs))
	return nil
}

// refuse notes that a newer configuration is wrong.
func (d *Daemon) refuse(err error) {
	d.mu.Lock()
	d.problem = err.Error()
	d.mu.Unlock()
	d.log.Error("the new configuration is wrong: the old one stays", "error", err.Error())
}

// LoadAndReload reads the configuration file and puts it in force, or says why
// not: then the old one stays.
func (d *Daemon) LoadAndReload(path string) error {
	cfg, err := LoadConfig(path)
	if err != nil {
		d.refuse(err)
		return err
	}
	return d.Reload(cfg)
}

// watchEvery is how often a configuration file is looked at.
const watchEvery = 3 * time.Second

// WatchConfig calls changed when what the file at path holds is another, until
// ctx ends. It looks every few seconds and waits until the file is the same
// twice, so that one that is being written is not read by halves; it follows
// links, as those of mounted ConfigMaps. A file that is gone is no change.
func WatchConfig(ctx context.Context, path string, log *slog.Logger, changed func()) {
	known, err := fingerprint(path)
	if err != nil {
		log.Warn("watch configuration", "error", err.Error())
	}
	candidate := known
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := fingerprint(path)
		switch {
		case err != nil:
			if !errors.Is(err, fs.ErrNotExist) {
				log.Warn("watch configuration", "error", err.Error())
			}
		case now.sum != candidate.sum || !now.modified.Equal(candidate.modified):
			candidate = now
		case now.sum != known.sum:
			known = now
			changed()
		}
	}
}

// version is what a file holds, in short.
type version struct {
	modified time.Time
	sum      [sha256.Size]byte
}

func fingerprint(path string) (version, error) {
	f, err := os.Open(path)
	if err != nil {
		return version{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return version{}, fmt.Errorf("%s: %w", path, err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile+1)); err != nil {
		return version{}, fmt.Errorf("%s: %w", path, err)
	}
	p := version{modified: info.ModTime()}
	h.Sum(p.sum[:0])
	return p, nil
}

package scheduler

import (
	"bytes"
	_ "embed" // the examples
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// ExampleConfig is a configuration file that has every key once, each
// explained. It can be read, but not run: it names places that don't exist.
//
//go:embed example.yaml
var ExampleConfig []byte

// StarterConfig is a small configuration file that backs up an etcd on this
// machine into a folder beside the file, every few seconds.
//
//go:embed starter.yaml
var StarterConfig []byte

// LoadConfig reads a configuration file. What is wrong in it is a
// [*ConfigError].
func LoadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return ParseConfig(path, data)
}

// ParseConfig reads a configuration: one YAML document, in which nothing may
// stand that it does not know. It touches no file: name is what problems name,
// and its folder is what relative paths are below.
//
// All problems are reported at once, as a [*ConfigError].
func ParseConfig(name string, data []byte) (*Config, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	src := newSource(name, data)
	c := &Config{file: name, places: src.places}
	base, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", name, err)
	}
	if decode(src, data, base, c) {
		c.finish()
		c.check(src)
	}
	if err := src.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// finish makes the schedules of what was read apart.
func (c *Config) finish() {
	for _, j := range c.Jobs {
		if j == nil {
			continue
		}
		seed := j.Name + "\n" + c.whereabouts(j)
		if j.Schedule != nil {
			j.Schedule = j.Schedule.with(ScheduleOptions{Zone: j.Timezone, Jitter: j.Jitter, Seed: seed})
		}
		if d := j.Drill; d != nil && d.Schedule != nil {
			d.Schedule = d.Schedule.with(ScheduleOptions{Zone: j.Timezone, Jitter: d.Jitter, Seed: seed + "\ndrill"})
		}
		if j.Kind == "" {
			j.Kind = c.defaultKind(j)
		}
	}
}

// whereabouts is what tells the job's cluster from those of other places that
// have a job of the same name: their runs are not to start in the same second.
func (c *Config) whereabouts(j *JobConfig) string {
	cluster := c.Clusters[j.Cluster]
	if cluster == nil {
		return ""
	}
	return fmt.Sprintf("%s %q %s", j.Cluster, cluster.Endpoints, cluster.DataDir)
}

func (c *Config) defaultKind(j *JobConfig) repository.Kind {
	if cluster := c.Clusters[j.Cluster]; cluster != nil && len(cluster.Endpoints) == 0 {
		return repository.Files
	}
	return repository.Live
}

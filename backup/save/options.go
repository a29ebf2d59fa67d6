package save

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// Options of every save; the zero value works.
type Options struct {
	Recipients  repository.Recipients
	Compression repository.Compression
	Labels      map[string]string
	// Plaintext lets a backup go unencrypted even where those before it were
	// encrypted.
	Plaintext bool
	// Include are files and folders to save along, such as certificates. Links
	// are followed; their parts are named by their absolute path, below
	// include/.
	Include []string
	// Tool is what writes, with its version, for the manifest.
	Tool string

	// Info is told what was picked and why, Warn what an operator should know.
	// nil: nobody is.
	Info func(text string)
	Warn func(text string)
	// Total is called with about how many bytes there will be, once that is
	// known, and again for another try.
	Total func(bytes int64)
	// Progress is called with the bytes of each piece of plain data that was
	// handed to the repository. A part that is tried again is taken back by a
	// negative number.
	Progress func(bytes int64)
}

// ErrPlaintext says that a backup would not be encrypted, though the newest
// one under its name is.
var ErrPlaintext = errors.New("this one would not be encrypted")

// job is one save on its way.
type job struct {
	Options
	repo    *repository.Repository
	cluster string // name in the repository
	draft   *repository.Draft
	facts   repository.Manifest
}

// begin names the backup, checks it against those before it, and starts it.
func (j *job) begin(ctx context.Context, clusterID uint64) error {
	j.facts.ClusterID = formatID(clusterID)
	if j.cluster == "" {
		j.cluster = j.facts.ClusterID
		j.info("no name was given: the backup is kept under the cluster's id, %s", j.cluster)
	}
	if err := j.compareWithNewest(ctx); err != nil {
		return err
	}
	var err error
	j.draft, err = j.repo.Begin(ctx, j.cluster, repository.DraftOptions{
		Recipients: j.Recipients, Compression: j.Compression, Labels: j.Labels,
	})
	j.facts.Tool = j.Tool
	return err
}

// compareWithNewest looks for what is odd against the newest backup of the
// same name.
func (j *job) compareWithNewest(ctx context.Context) error {
	list, err := j.repo.List(ctx, j.cluster)
	if errors.Is(err, repository.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(list.Damaged) > 0 {
		j.warn("%d objects of %s in the repository can't be read, the first: %v", len(list.Damaged), j.cluster, list.Damaged[0].Err)
	}
	if len(list.Backups) == 0 {
		return nil
	}
	newest := list.Backups[len(list.Backups)-1].Manifest
	if newest.Encryption != "" && len(j.Recipients.Names()) == 0 && !j.Plaintext {
		return fmt.Errorf("the newest backup of %s, %s, is encrypted, and %w", j.cluster, newest.ID, ErrPlaintext)
	}
	if newest.ClusterID != j.facts.ClusterID {
		j.warn("the newest backup of %s, %s, is of cluster id %s, this one is of %s: has the cluster been made anew, or is this another one?",
			j.cluster, newest.ID, newest.ClusterID, j.facts.ClusterID)
	}
	return nil
}

// put stores a part and tells the progress.
func (j *job) put(ctx context.Context, part repository.Part, write func(context.Context, io.Writer) error) error {
	var sent int64
	_, err := j.draft.Put(ctx, part, func(ctx context.Context, w io.Writer) error {
		return write(ctx, &counter{w, func(n int64) { sent += n; j.progress(n) }})
	})
	if err != nil {
		j.progress(-sent)
	}
	return err
}

// putIncludes stores what is saved along.
func (j *job) putIncludes(ctx context.Context, files []include) error {
	for _, file := range files {
		part := repository.Part{Name: file.part, Role: repository.RoleInclude, Mode: repository.FileMode(file.info.Mode().Perm())}
		if err := j.put(ctx, part, file.copyTo); err != nil {
			return err
		}
	}
	return nil
}

// abort removes what was stored.
func (j *job) abort(ctx context.Context) error {
	if j.draft == nil {
		return nil
	}
	return j.draft.Abort(ctx)
}

// note goes into the manifest, and is worth a warning.
func (j *job) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	j.facts.Notes = append(j.facts.Notes, text)
	j.warn("%s", text)
}

func (j *job) info(format string, args ...any) {
	if j.Info != nil {
		j.Info(fmt.Sprintf(format, args...))
	}
}

func (j *job) warn(format string, args ...any) {
	if j.Warn != nil {
		j.Warn(fmt.Sprintf(format, args...))
	}
}

func (j *job) total(n int64) {
	if j.Total != nil {
		j.Total(n)
	}
}

func (j *job) progress(n int64) {
	if j.Progress != nil {
		j.Progress(n)
	}
}

// counter tells how many bytes pass.
type counter struct {
	w     io.Writer
	count func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.count(int64(n))
	return n, err
}

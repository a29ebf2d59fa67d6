//go:build e2e

package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

// fault is a way to break what a daemon depends on.
type fault struct {
	strike, mend func()
	stage        scheduler.Stage // that fails
	cause        scheduler.Cause
	reason       []string // what its text has to name
	store        bool     // the repository is out of reach meanwhile
}

// Whatever breaks, the run fails, says why wherever one may look, and leaves no
// half of a backup. When it is mended, the next run is well.
func TestDaemonFaults(t *testing.T) {
	certs := newAuthority(t)
	e, endpoint := startTLS(t, etcd37, certs)
	fillSome(t, e)
	for _, tt := range []struct {
		name string
		of   func(*watchedDaemon) fault
	}{
		{"etcd is down", etcdDown},
		{"etcd hangs", etcdHangs},
		{"etcd's certificate has expired", serverExpired},
		{"etcd's authority is another", authorityUnknown},
		{"the client's certificate has expired", clientExpired},
		{"the client's certificate is none", clientBroken},
		{"S3 is down", s3Down},
		{"S3 hangs", s3Hangs},
		{"the disk is full", diskFull},
		{"a hook hangs", hookHangs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &watchedDaemon{t: t, etcd: e, endpoint: endpoint, certs: certs, dir: t.TempDir()}
			f := tt.of(d)
			d.start()
			d.mustSave(1)
			mend := sync.OnceFunc(f.mend)
			defer mend() // the next one needs it too
			f.strike()
			d.mustFail(f)
			mend()
			d.mustHold(1)
			d.mustSave(2)
			if err := d.proc.stop(); err != nil {
				t.Error(err)
			}
			d.receiver.wantNothing()
		})
	}
}

// startTLS starts an etcd that beside the harness's endpoint has one, which it
// returns, for whom the authority vouches.
func startTLS(t testing.TB, r release, certs *authority) (*etcd, string) {
	t.Helper()
	e := &etcd{t: t, release: r, name: "m1", dir: newDataDir(t)}
	certs.issue("client", soon())
	server := certs.issue("server", soon())
	var endpoint string
	err := retryPorts(func() error {
		ports := freePorts(t, 3)
		e.client, e.peer = loopback(ports[0]), loopback(ports[1])
		e.cluster = e.name + "=" + e.peer
		endpoint = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
		e.flags = []string{
			"--listen-client-urls", e.client + "," + endpoint,
			"--cert-file", server, "--key-file", certs.key, "--trusted-ca-file", certs.ca, "--client-cert-auth",
		}
		return e.Restart()
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, endpoint
}

// soon and past are ends of certificates.
func soon() time.Time { return time.Now().Add(time.Hour) }
func past() time.Time { return time.Now().Add(-time.Hour) }

// fillSome puts 2 MiB that don't compress into an etcd.
func fillSome(t testing.TB, e *etcd) {
	t.Helper()
	value := make([]byte, 256<<10)
	for i := range 8 {
		rand.Read(value)
		if err := e.put(fmt.Sprintf("/bulk/%d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
}

func etcdDown(d *watchedDaemon) fault {
	return fault{
		strike: d.etcd.Kill,
		mend: func() {
			if err := d.etcd.Restart(); err != nil {
				d.t.Fatal(err)
			}
		},
		stage: scheduler.StageSave, cause: scheduler.CauseEndpoint,
		reason: []string{d.endpoint, "connection refused"},
	}
}

// etcdHangs has an etcd that takes connections and never says a word.
func etcdHangs(d *watchedDaemon) fault {
	return fault{
		strike: func() { d.signal(syscall.SIGSTOP) },
		mend:   func() { d.signal(syscall.SIGCONT) },
		stage:  scheduler.StageSave, cause: scheduler.CauseEndpoint,
		reason: []string{d.endpoint, "deadline exceeded"},
	}
}

func serverExpired(d *watchedDaemon) fault {
	return fault{
		strike: func() { d.certs.issue("server", past()) },
		mend:   func() { d.certs.issue("server", soon()) },
		stage:  scheduler.StageSave, cause: scheduler.CauseEndpoint,
		reason: []string{d.endpoint, "certificate has expired"},
	}
}

func authorityUnknown(d *watchedDaemon) fault {
	return fault{
		strike: func() { d.copyFile(newAuthority(d.t).ca, d.path("ca.crt")) },
		mend:   func() { d.copyFile(d.certs.ca, d.path("ca.crt")) },
		stage:  scheduler.StageSave, cause: scheduler.CauseEndpoint,
		reason: []string{d.endpoint, "certificate signed by unknown authority"},
	}
}

func clientExpired(d *watchedDaemon) fault {
	return fault{
		strike: func() { d.certs.issue("client", past()) },
		mend:   func() { d.certs.issue("client", soon()) },
		stage:  scheduler.StageSave, cause: scheduler.CauseEndpoint,
		reason: []string{d.endpoint, "the client's certificate has expired"},
	}
}

// clientBroken has a file in place of the certificate that holds none.
func clientBroken(d *watchedDaemon) fault {
	return fault{
		strike: func() { d.copyFile(d.config, filepath.Join(d.certs.dir, "client.crt")) },
		mend:   func() { d.certs.issue("client", soon()) },
		stage:  scheduler.StageSave, cause: scheduler.CauseConfig,
		reason: []string{"client.crt"},
	}
}

func s3Down(d *watchedDaemon) fault {
	s := d.keepOnS3()
	return fault{
		strike: s.Kill, mend: s.Restart,
		stage: scheduler.StageOpen, cause: scheduler.CauseStore,
		reason: []string{"s3://" + s3server.Bucket, s.Address(), "connection refused"},
		store:  true,
	}
}

func s3Hangs(d *watchedDaemon) fault {
	s := d.keepOnS3()
	d.timeout = "5s"
	return fault{
		strike: s.Freeze, mend: s.Thaw,
		stage: scheduler.StageOpen, cause: scheduler.CauseTimeout,
		reason: []string{"took longer than the 5s", "s3://" + s3server.Bucket},
	}
}

// diskFull leaves room for the file that is saved along, and a part of the rest.
func diskFull(d *watchedDaemon) fault {
	disk := smallDisk(d.t, 16<<20)
	d.repo = filepath.Join(disk, "repo")
	ballast := filepath.Join(disk, "ballast")
	return fault{
		strike: func() { d.fill(ballast, 1<<20) },
		mend:   func() { d.remove(ballast) },
		stage:  scheduler.StageSave, cause: scheduler.CauseDisk,
		reason: []string{d.repo, "no space left on device"},
	}
}

// hookHangs has a hook that does not heed SIGTERM either.
func hookHangs(d *watchedDaemon) fault {
	return fault{
		strike: func() { d.copyFile(d.config, d.path("hang")) },
		mend:   func() { d.remove(d.path("hang")) },
		stage:  scheduler.StageBefore, cause: scheduler.CauseHook,
		reason: []string{"hook sh", "timed out after 2s", "waiting for a lock"},
	}
}

// signal goes to the etcd.
func (d *watchedDaemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.etcd.proc.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// fill leaves so many bytes of a file's disk free.
func (d *watchedDaemon) fill(file string, free int64) {
	d.t.Helper()
	f, err := os.Create(file)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	size, err := io.Copy(f, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("after %d bytes: %v", size, err)
	}
	if err := f.Truncate(size - free); err != nil {
		d.t.Fatal(err)
	}
}

// zeros have no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// keepOnS3 gives the daemon a repository in a bucket.
func (d *watchedDaemon) keepOnS3() *s3server.Server {
	d.t.Helper()
	s := s3server.Start(d.t, s3server.Options{})
	s.Setenv(d.t)
	d.repo = s3Repo(s, "")
	return s
}

package save

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// copySegment copies the good records of a segment byte for byte, and makes
// sure that they are those that were verified.
func copySegment(ctx context.Context, dir *datadir.Dir, s walcodec.SegmentReport, w io.Writer) error {
	f, err := dir.OpenSegment(s.Name)
	if err != nil {
		return err
	}
	src := &limited{ctx, io.LimitReader(f, s.Used)}
	r := walcodec.NewReader(io.TeeReader(src, w), walcodec.ReaderOptions{Segment: s.Name})
	for {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("%s: %w", dir.WAL, err)
		}
	}
	if r.Offset() != s.Used || r.CRC() != s.EndCRC {
		return fmt.Errorf("%s: changed between two readings", filepath.Join(dir.WAL, s.Name))
	}
	return nil
}

// limited ends with the context.
type limited struct {
	ctx context.Context
	r   io.Reader
}

func (l *limited) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}

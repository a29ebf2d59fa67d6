package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// What stands in the way of a copy names what else there is to do.
func TestBackupSaysWhatElseToDo(t *testing.T) {
	damage := datadir.Running.MayChange(&snapcodec.CorruptError{Cause: errors.New("bad page")})
	for name, c := range map[string]struct {
		err  error
		want string
		code int
	}{
		"too many commits":  {snapcodec.ErrBusy, "lifeboat save --endpoints URL), stop the member", exitFailed},
		"files that differ": {fmt.Errorf("db: %w", datadir.ErrChanged), "lifeboat save --endpoints URL), stop the member", exitFailed},
		"damage":            {damage, "bad page", exitDamage},
		"a seed in use":     {backup.ErrLive, "lifeboat backup --keep-cluster-id", exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			err := backupExit(fmt.Errorf("backup: %w", c.err))
			code := exitFailed
			var exit *exitError
			if errors.As(err, &exit) {
				code = exit.code
			}
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || code != c.code {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}

package server

import (
	"errors"

	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// IsLocked tells whether err says that another server has the dir open.
func IsLocked(err error) bool {
	return errors.Is(err, fileutil.ErrLocked) || errors.Is(err, bolterrors.ErrTimeout)
}

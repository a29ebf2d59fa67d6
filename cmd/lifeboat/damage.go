package main

import (
	"errors"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// isDamage tells whether err is about bytes that are not what they should be.
func isDamage(err error) bool {
	var log *walcodec.CorruptError
	var snap *snapcodec.CorruptError
	return errors.As(err, &log) || errors.As(err, &snap)
}

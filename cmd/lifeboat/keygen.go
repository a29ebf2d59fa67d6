package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

func newKeygenCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key pair for encrypted backups",
		Long: `Keygen writes a new age identity, the secret key, to FILE, and prints its
recipient, the public key. The machine that backs up needs only the recipient
(save --recipient); who restores needs FILE (--identity FILE). Keep a copy of it
where the backups are not: without it they can't be read.

FILE must not be there yet; - is the standard output. age-keygen makes the same.`,
		Example: `  lifeboat keygen key.txt`,
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			secret, recipient, err := repository.NewKey()
			if err == nil {
				err = writeKey(e, args[0], secret, recipient)
			}
			if err != nil {
				return fmt.Errorf("keygen: %w", err)
			}
			to := e.Stdout
			if args[0] == "-" {
				to = e.Stderr
			}
			_, err = fmt.Fprintln(to, recipient)
			return err
		},
	}
}

// writeKey writes the file as age-keygen does.
func writeKey(e *env, path string, secret repository.Secret, recipient string) error {
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), recipient, strings.TrimSpace(secret.Reveal()))
	if path == "-" {
		_, err := io.WriteString(e.Stdout, text)
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: is there already, and may be the only key to some backups: name another file", path)
	}
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, text); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

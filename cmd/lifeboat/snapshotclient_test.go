package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestConnectionHint(t *testing.T) {
	cause := errors.New("x")
	for words, want := range map[string]string{
		"tls: failed to verify certificate: x509: certificate signed by unknown authority": "--cacert",
		"error reading server preface: remote error: tls: certificate required":            "--cert and --key",
		"error reading server preface: EOF":                                                "https://",
		"authentication handshake failed: EOF":                                             "http://",
		"connection refused":                                                               "",
	} {
		err := connectionHint(fmt.Errorf("%w: %s", cause, words))
		_, hint, _ := strings.Cut(err.Error(), "\n")
		if !strings.Contains(hint, want) || (hint == "") != (want == "") || !errors.Is(err, cause) {
			t.Errorf("%s: hint %q, want one with %q", words, hint, want)
		}
	}
}

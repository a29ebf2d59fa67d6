package storage

import (
	"math"
	"strings"
	"testing"
)

func TestCheckKey(t *testing.T) {
	for key, want := range map[string]string{
		"a": "", "a/b-c/d_e.f": "", "...": "", ".a": "", "A+b=c@d": "",
		strings.Repeat("p", 200):         "",
		strings.Repeat("p", 201):         "201 bytes, more than 200",
		strings.Repeat("p/", 400):        "empty",
		strings.Repeat("p/", 399) + "pp": "",
		strings.Repeat("p/", 400) + "p":  "801 bytes, more than 800",
		"":                               "empty",
		"/":                              "empty",
		"/a":                             "empty",
		"a/":                             "empty",
		"a//b":                           "empty",
		".":                              `"." can't be`,
		"a/..":                           `".." can't be`,
		"a/../b":                         `".." can't be`,
		"a b":                            `' '`,
		"a\x00":                          `'\x00'`,
		"a~":                             `'~'`,
		"ä":                              "not allowed",
		`a\b`:                            `'\\'`,
		strings.Repeat("x/", 100) + "e\nnd/of/it": `'\n'`,
	} {
		err := CheckKey(key)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", key, err, want)
		}
	}
}

// Every beginning of a key is a prefix, and nothing else is.
func FuzzCheckPrefix(f *testing.F) {
	for _, seed := range []string{"", "a/b.c/..d", "../a", "a//b", "/", ".", "a/.", "a/..", "a b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if CheckKey(text) == nil {
			for i := range text {
				if err := CheckPrefix(text[:i]); err != nil {
					t.Error(err)
				}
			}
		}
		if len(text) < 199 && CheckPrefix(text) == nil {
			if err := CheckKey(text + "xx"); err != nil {
				t.Errorf("a prefix that no key has: %v", err)
			}
		}
	})
}

func TestRangeWithin(t *testing.T) {
	tests := []struct {
		r                    Range
		size, offset, length int64
		fails                bool
	}{
		{Range{}, 10, 0, 10, false},
		{Range{}, 0, 0, 0, false},
		{Range{3, 4}, 10, 3, 4, false},
		{Range{3, 0}, 10, 3, 7, false},
		{Range{3, 100}, 10, 3, 7, false},
		{Range{10, 1}, 10, 10, 0, false},
		{Range{math.MaxInt64, math.MaxInt64}, 10, 10, 0, false},
		{Range{-1, 0}, 10, 0, 0, true},
		{Range{0, -1}, 10, 0, 0, true},
	}
	for _, test := range tests {
		offset, length, err := test.r.Within(test.size)
		if offset != test.offset || length != test.length || (err != nil) != test.fails {
			t.Errorf("%+v of %d: %d, %d, %v", test.r, test.size, offset, length, err)
		}
	}
}

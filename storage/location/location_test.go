package location

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want Location
		back string // what String says, if not text
	}{
		{"/backup/etcd", Location{Dir: "/backup/etcd"}, ""},
		{"backup", Location{Dir: "backup"}, ""},
		{"./a:b", Location{Dir: "./a:b"}, ""},
		{"../with space", Location{Dir: "../with space"}, ""},
		{"/a%20b", Location{Dir: "/a%20b"}, ""},
		{"file:///backup/etcd", Location{Dir: "/backup/etcd"}, "/backup/etcd"},
		{"FILE://localhost/a", Location{Dir: "/a"}, "/a"},
		{"file:///a%20b%3Fc", Location{Dir: "/a b?c"}, "file:///a%20b%3Fc"},
		{"/backup?limit-upload=10MiB", Location{Dir: "/backup", LimitUpload: 10 << 20}, "file:///backup?limit-upload=10MiB"},
		{"file:///backup?limit-download=1500&limit-upload=2kB/s", Location{Dir: "/backup", LimitUpload: 2000, LimitDownload: 1500}, "file:///backup?limit-download=1500&limit-upload=2000"},
		{"/backup?", Location{Dir: "/backup"}, "/backup"},
		{"s3://bucket", Location{S3: &s3.Options{Bucket: "bucket"}}, ""},
		{"s3://bucket/", Location{S3: &s3.Options{Bucket: "bucket"}}, "s3://bucket"},
		{"S3://my.bucket-1/a/b/", Location{S3: &s3.Options{Bucket: "my.bucket-1", Prefix: "a/b"}}, "s3://my.bucket-1/a/b"},
		{"s3://bucket/a%20b", Location{S3: &s3.Options{Bucket: "bucket", Prefix: "a b"}}, ""},
		{
			"s3://b/p?endpoint=https://s3.example.com:9000&region=eu-west-1&path-style=true&ca-file=/etc/ca.pem&sse=aws:kms" +
				"&kms-key=arn:aws:kms:eu-west-1:1:key/2&storage-class=STANDARD_IA&object-lock=governance&lock-days=30" +
				"&limit-upload=10MiB&limit-download=1GiB",
			Location{
				S3: &s3.Options{
					Bucket: "b", Prefix: "p", Endpoint: "https://s3.example.com:9000", Region: "eu-west-1", PathStyle: true,
					CAFile: "/etc/ca.pem", SSE: s3.SSEKMS, KMSKey: "arn:aws:kms:eu-west-1:1:key/2", StorageClass: "STANDARD_IA",
					ObjectLock: s3.Governance, LockFor: 30 * 24 * time.Hour,
				},
				LimitUpload: 10 << 20, LimitDownload: 1 << 30,
			},
			"s3://b/p?ca-file=%2Fetc%2Fca.pem&endpoint=https%3A%2F%2Fs3.example.com%3A9000&kms-key=arn%3Aaws%3Akms%3Aeu-west-1%3A1%3Akey%2F2" +
				"&limit-download=1GiB&limit-upload=10MiB&lock-days=30&object-lock=governance&path-style=true&region=eu-west-1&sse=aws%3Akms&storage-class=STANDARD_IA",
		},
		{"s3://b?path-style=false", Location{S3: &s3.Options{Bucket: "b"}}, "s3://b"},
	}
	for _, test := range tests {
		got, err := Parse(test.text)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, %v; want %+v", test.text, got, err, test.want)
			continue
		}
		back := test.back
		if back == "" {
			back = test.text
		}
		if got.String() != back {
			t.Errorf("%s: its text is %s, want %s", test.text, got, back)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "it is empty",
		"?region=x":                       "it is empty",
		"~/backup":                        "the shell did not replace the ~",
		"~":                               "the shell did not replace the ~",
		"file://backup":                   "want file:///PATH",
		"file:backup":                     "want file:///PATH",
		"file:///a#b":                     "must be written %23",
		"file:///a%zz":                    "must be written %25",
		"file:///a%00b":                   "can't be meant",
		"/backup\n":                       "can't be meant",
		"s3:bucket/prefix":                "want s3://BUCKET/PREFIX",
		"s3:/bucket":                      "want s3://BUCKET/PREFIX",
		"s3:https://host/bucket":          "want s3://BUCKET/PREFIX",
		"s3://":                           "names no bucket",
		"s3:///prefix":                    "names no bucket",
		"s3://host:9000/bucket":           "?endpoint=https://HOST:PORT",
		"s3://%41/b":                      "letters, digits",
		"s3://bucket/a/../b":              `".." can't be a part`,
		"s3://bucket/a//b":                `"" can't be a part`,
		"gs://bucket":                     "gs: is no kind of store",
		"sftp://host/path":                "sftp: is no kind of store",
		"backup:etcd":                     "./backup:… if that is its name",
		"s3://b?endpont=x":                `"endpont" is no parameter of it: did you mean endpoint?`,
		"s3://b?limit-uplaod=1":           "did you mean limit-upload?",
		"s3://b?path_style=true":          "did you mean path-style?",
		"s3://b?Region=x":                 "did you mean region?",
		"s3://b?colour=red":               "there are endpoint, region, path-style",
		"/backup?region=x":                "region is only for buckets",
		"/backup?limits=1":                "there are limit-upload, limit-download",
		"/backup?limit-upload=10mb":       "limit-upload: want bytes such as",
		"/backup?limit-upload=9999999TiB": "limit-upload: want bytes such as",
		"/backup?limit-upload=-1":         "limit-upload: want bytes such as",
		"/backup?limit-upload":            "limit-upload has no value",
		"s3://b?region=":                  "region has no value",
		"s3://b?region=a&region=b":        "region is given twice",
		"s3://b?region=%z":                "must be written %25",
		"s3://b?region=a%0Ab":             "can't be meant",
		"s3://b?path-style=yes":           "want true or false",
		"s3://b?lock-days=0&object-lock=compliance":   "lock-days: \"0\": want a number of days",
		"s3://b?lock-days=x":                          "lock-days: \"x\": want a number of days",
		"s3://b?lock-days=30":                         "object-lock",
		"s3://b?object-lock=forever":                  "governance or compliance",
		"s3://b?sse=none":                             "AES256",
		"s3://b?kms-key=x":                            "sse=aws:kms",
		"s3://b?endpoint=host:9000":                   "want a URL",
		"s3://AKIAID:hunter2@bucket/p":                "AWS_ACCESS_KEY_ID",
		"s3://AKIAID:hun/ter2@bucket/p":               "AWS_ACCESS_KEY_ID",
		"s3://AKIAID@bucket/p":                        "AWS_ACCESS_KEY_ID",
		"s3://b?access-key=AKIAID&secret=hunter2":     "AWS_ACCESS_KEY_ID",
		"s3://b?secret_access_key=hunter2":            "AWS_ACCESS_KEY_ID",
		"s3://b?session-token=hunter2":                "AWS_ACCESS_KEY_ID",
		"s3://b?endpoint=https://AKIAID:hunter2@host": "AWS_ACCESS_KEY_ID",
		"s3://b?hunter2=1&region=%zz":                 "there are",
	} {
		l, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", text, l, err, want)
			continue
		}
		for _, secret := range []string{"hun/", "ter2@", "AKIAID"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error tells a secret: %v", text, err)
			}
		}
	}
}

func TestStringHidesSecrets(t *testing.T) {
	l := Location{S3: &s3.Options{Bucket: "b", Endpoint: "https://AKIAID:hunter2@host"}}
	if text := l.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "AKIAID") || !strings.Contains(text, "host") {
		t.Error(text)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "10": 10, "10B": 10, "1KiB": 1 << 10, "10MiB": 10 << 20, "3GiB": 3 << 30, "2TiB": 2 << 40, "1kB": 1000, "5MB": 5_000_000,
		"": -1, "MiB": -1, "1.5MiB": -1, "-1": -1, "1 MiB": -1, "1mib": -1, "9999999TiB": -1, "9999999999999999999": -1,
	} {
		got, err := ParseSize(text)
		if want < 0 != (err != nil) || err == nil && got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"schedule", "retention", "repositories", "cert", "key"}
	for text, want := range map[string]string{
		"scedule": "schedule", "Schedule": "schedule", "shcedule": "schedule", "retension": "retention",
		"crt": "cert", "kye": "key", "kay": "key", "_cert": "cert", "repos": "", "x": "", "metrics": "", "": "",
	} {
		if got := Nearest(text, words); got != want {
			t.Errorf("nearest to %q is %q, want %q", text, got, want)
		}
	}
}

// What Parse takes, it takes again from String, and nothing is lost on the way.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"/backup", "a/b", "file:///a%20b", "./x:y?limit-upload=3MiB", "s3://b/p?region=r&lock-days=3&object-lock=compliance",
		"s3://b?endpoint=https://h:1/x&path-style=true&limit-download=7", "s3://b/a%2Fb", "s3://b/%41", "file:////a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(l.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", text, l, err)
		}
		if l.S3 == nil && l.Dir != again.Dir {
			// A relative path in a file URL is absolute.
			if l.Dir, err = filepath.Abs(l.Dir); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(l, again) {
			t.Errorf("%q became %+v, and then %+v", text, l, again)
		}
	})
}

func TestOpenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	l := Location{Dir: dir, LimitUpload: 1 << 30}
	if s, err := l.Open(t.Context(), Options{}); err == nil || s != nil || !strings.Contains(err.Error(), "is its file system mounted?") {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a missing directory was made")
	}
	s, err := l.Open(t.Context(), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "k", strings.NewReader("text"), storage.PutOptions{}); err != nil {
		t.Error(err)
	}
	if _, ok := storage.As[storage.Sweeper](s); !ok {
		t.Error("the sweep of the directory is out of reach")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "k")); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestOpenBucketThatIsWrong(t *testing.T) {
	l := Location{S3: &s3.Options{}}
	if s, err := l.Open(t.Context(), Options{}); err == nil || s != nil {
		t.Errorf("%v, %v", s, err)
	}
}

package s3

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// TestHeaders wants what the options say in each request that makes an object.
func TestHeaders(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{Lock: true})
	s.o.SSE, s.o.KMSKey, s.o.StorageClass = SSEKMS, "key-1", "STANDARD_IA"
	s.o.ObjectLock, s.o.LockFor = Governance, time.Hour
	for name, test := range map[string]struct {
		kind func(*http.Request) bool
		data []byte
	}{
		"in one request": {isPut, noise(10)},
		"in parts":       {isBegin, noise(15 << 20)},
	} {
		t.Run(name, func(t *testing.T) {
			seen := http.Header{}
			m.set(func(w http.ResponseWriter, r *http.Request) bool {
				if test.kind(r) {
					seen = r.Header.Clone()
					sayError(w, http.StatusBadRequest, "InvalidRequest", "a test has seen enough")
				}
				return test.kind(r)
			}, nil)
			if err := put(s, "a", test.data, storage.PutOptions{}); err == nil {
				t.Fatal("no error")
			}
			for header, want := range map[string]string{
				"X-Amz-Server-Side-Encryption":                "aws:kms",
				"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "key-1",
				"X-Amz-Storage-Class":                         "STANDARD_IA",
				"X-Amz-Object-Lock-Mode":                      "GOVERNANCE",
			} {
				if got := seen.Get(header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
			until, err := time.Parse(time.RFC3339, seen.Get("X-Amz-Object-Lock-Retain-Until-Date"))
			if err != nil || time.Until(until) < 59*time.Minute || time.Until(until) > time.Hour+time.Second {
				t.Errorf("locked until %v, %v, want an hour", until, err)
			}
		})
	}
}

// TestChecksums wants one with each body that is sent, unless the SDK's
// environment says that the server knows none; with a lock also then.
func TestChecksums(t *testing.T) {
	for name, test := range map[string]struct {
		env    string
		lock   time.Duration
		crc    bool
		digest bool
	}{
		"default":                {"", 0, true, false},
		"when required":          {"when_required", 0, false, false},
		"when required and lock": {"when_required", time.Hour, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", test.env)
			s, m, _ := behind(t, s3server.Options{Lock: true})
			if test.lock > 0 {
				s.o.ObjectLock, s.o.LockFor = Governance, test.lock
			}
			bodies := 0
			m.set(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					bodies++
					if got := r.Header.Get("X-Amz-Checksum-Crc32c") != ""; got != test.crc {
						t.Errorf("%s: a CRC-32C? %v, want %v", r.URL, got, test.crc)
					}
					if got := r.Header.Get("Content-Md5") != ""; got != test.digest {
						t.Errorf("%s: an MD5? %v, want %v", r.URL, got, test.digest)
					}
					if r.Header.Get("X-Amz-Trailer") != "" {
						t.Errorf("%s: a trailer", r.URL)
					}
				}
				return false
			}, nil)
			for key, data := range map[string][]byte{"empty": nil, "small": noise(10), "large": noise(15 << 20)} {
				if err := put(s, key, data, storage.PutOptions{CreateOnly: true}); err != nil {
					t.Fatal(err)
				}
				wantData(t, s, key, data)
			}
			if bodies < 5 {
				t.Errorf("%d bodies seen", bodies)
			}
		})
	}
}

// TestFewerChecksums has servers that know less of them than Amazon.
func TestFewerChecksums(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	data := noise(15 << 20)
	t.Run("of parts only", func(t *testing.T) {
		m.set(func(w http.ResponseWriter, r *http.Request) bool {
			whole := isBegin(r) && r.Header.Get("X-Amz-Checksum-Type") == "FULL_OBJECT"
			if whole {
				sayError(w, http.StatusBadRequest, "InvalidRequest", "no such type")
			}
			return whole
		}, nil)
		if err := put(s, "a", data, storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, "a", data)
	})
	t.Run("none", func(t *testing.T) {
		m.set(func(w http.ResponseWriter, r *http.Request) bool {
			sums := r.Header.Get("X-Amz-Checksum-Crc32c") != ""
			if sums {
				sayError(w, http.StatusNotImplemented, "NotImplemented", "Unsupported header x-amz-checksum-crc32c")
			}
			return sums
		}, nil)
		err := put(s, "b", data[:10], storage.PutOptions{})
		wantError(t, err, nil, "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required")
	})
}

// listing is an answer to a List.
func listing(truncated bool, token string, keys ...string) string {
	body := fmt.Sprintf("<ListBucketResult><Name>b</Name><IsTruncated>%v</IsTruncated>", truncated)
	if token != "" {
		body += "<NextContinuationToken>" + token + "</NextContinuationToken>"
	}
	for _, key := range keys {
		body += "<Contents><Key>" + key + "</Key><Size>1</Size><LastModified>2024-01-01T00:00:00Z</LastModified></Contents>"
	}
	return body + "</ListBucketResult>"
}

func TestListOfBadServers(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want string
	}{
		"out of order":        {listing(false, "", "p/b", "p/a"), "keeps no order"},
		"twice the same":      {listing(false, "", "p/a", "p/a"), "keeps no order"},
		"cut without a token": {listing(true, "", "p/a"), "only a part"},
		"the same page again": {listing(true, "T", "p/a"), "keeps no order"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustOpen(t, saying(t, 200, map[string]string{"Content-Type": "application/xml"}, test.body), quick())
			var last error
			for _, err := range s.List(t.Context(), "") {
				last = err
			}
			wantError(t, last, nil, test.want)
		})
	}
}

// TestListOfForeignThings passes over the store's own folder alone.
func TestListOfForeignThings(t *testing.T) {
	body := listing(false, "", "p/", "p/a b", "p/c/", "p/ü")
	s := mustOpen(t, saying(t, 200, map[string]string{"Content-Type": "application/xml"}, body), quick())
	var keys []string
	for obj, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, obj.Key)
	}
	if got := strings.Join(keys, "|"); got != "a b|c/|ü" {
		t.Errorf("listed %s", got)
	}
}

func TestString(t *testing.T) {
	s := mustOpen(t, saying(t, 200, nil, listing(false, "")), quick())
	if want := "s3://b/p at " + s.o.Endpoint; s.String() != want {
		t.Errorf("it is %s, want %s", s, want)
	}
}

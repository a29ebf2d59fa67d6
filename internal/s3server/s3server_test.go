package s3server_test

import (
	"context"
	"io"
	"strings"
	"testing"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
)

func TestObjectsOutliveAKill(t *testing.T) {
	for name, o := range map[string]s3server.Options{
		"plain": {},
		"TLS":   {TLS: true},
		"lock":  {Lock: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := s3server.Start(t, o)
			put(t, s, "a/b", "hello")
			endpoint := s.Endpoint()
			s.Kill()
			s.Restart()
			if got := get(t, s, "a/b"); got != "hello" || s.Endpoint() != endpoint {
				t.Errorf("read %q at %s, want hello at %s", got, s.Endpoint(), endpoint)
			}
		})
	}
}

func put(t *testing.T, s *s3server.Server, key, value string) {
	t.Helper()
	bucket := s3server.Bucket
	_, err := s.Client().PutObject(context.Background(), &awss3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: strings.NewReader(value),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *s3server.Server, key string) string {
	t.Helper()
	bucket := s3server.Bucket
	out, err := s.Client().GetObject(context.Background(), &awss3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, s.fail(ctx, opStat, key, err)
	}
	out, err := s.head(ctx, key)
	if err != nil {
		return storage.Object{}, s.fail(ctx, opStat, key, err)
	}
	if out.ContentLength == nil {
		return storage.Object{}, s.fail(ctx, opStat, key, errors.New("the server does not say how large it is"))
	}
	return storage.Object{Key: key, Size: *out.ContentLength, Modified: aws.ToTime(out.LastModified)}, nil
}

func (s *Store) head(ctx context.Context, key string) (*awss3.HeadObjectOutput, error) {
	return s.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.o.Bucket, Key: s.object(key)})
}

// List implements [storage.Store]. A server that lists in another order is an
// error.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Object{}, s.fail(ctx, opList, prefix, err))
			return
		}
		last := ""
		for obj, err := range s.list(ctx, prefix) {
			if err == nil && obj.Key <= last && last != "" {
				err = fmt.Errorf("the server lists %q after %q: it keeps no order", obj.Key, last)
			}
			if err != nil {
				yield(storage.Object{}, s.fail(ctx, opList, prefix, err))
				return
			}
			last = obj.Key
			if !isProbe(obj.Key) && obj.Key != "" && !yield(obj, nil) {
				return
			}
		}
	}
}

// list yields all keys that begin with prefix, also probes, and "" for an
// object with the name of the store's own prefix: consoles make one as a folder.
func (s *Store) list(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		in := &awss3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: s.object(prefix)}
		pages := awss3.NewListObjectsV2Paginator(s.client, in, func(o *awss3.ListObjectsV2PaginatorOptions) {
			o.StopOnDuplicateToken = true
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err == nil {
				err = checkPage(page)
			}
			if err != nil {
				yield(storage.Object{}, err)
				return
			}
			for _, o := range page.Contents {
				if !yield(s.describe(o), nil) {
					return
				}
			}
		}
	}
}

// checkPage makes sure that no page is missing: the paginator ends without a
// word when a server says that there is more, but not where.
func checkPage(page *awss3.ListObjectsV2Output) error {
	if aws.ToString(page.Name) == "" {
		return errNotS3
	}
	if aws.ToBool(page.IsTruncated) && aws.ToString(page.NextContinuationToken) == "" {
		return errors.New("the server lists only a part, and does not say how to get the rest")
	}
	return nil
}

func (s *Store) describe(o types.Object) storage.Object {
	return storage.Object{
		Key:      strings.TrimPrefix(aws.ToString(o.Key), s.prefix),
		Size:     aws.ToInt64(o.Size),
		Modified: aws.ToTime(o.LastModified),
	}
}

// Delete implements [storage.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return s.fail(ctx, opDelete, key, err)
	}
	if err := s.delete(ctx, key); err != nil {
		return s.fail(ctx, opDelete, key, err)
	}
	return nil
}

// delete looks for a lock first. Keys that may not look try all the same: it is
// the server that keeps the version.
func (s *Store) delete(ctx context.Context, key string) error {
	until, err := s.lockedUntil(ctx, key)
	switch {
	case notFound(err):
		return nil
	case err != nil && status(err) != http.StatusForbidden:
		return err
	case !until.IsZero():
		return fmt.Errorf("%w: until %s", storage.ErrRetained, until.UTC().Format(time.RFC3339))
	}
	return s.remove(ctx, key)
}

func (s *Store) remove(ctx context.Context, key string) error {
	_, err := s.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: s.object(key)})
	if notFound(err) {
		return nil
	}
	return err
}

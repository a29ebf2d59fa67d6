package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Retain implements [storage.Retainer]. Without Options.ObjectLock it only
// extends locks that are there, and fails with [errors.ErrUnsupported] on an
// object that has none.
func (s *Store) Retain(ctx context.Context, key string, until time.Time) error {
	err := storage.CheckKey(key)
	if err == nil {
		err = s.retain(ctx, key, until)
	}
	if err != nil {
		return s.fail(ctx, opRetain, key, err)
	}
	return nil
}

// retain never shortens a lock, and leaves one that holds in its mode: S3 wants
// a right of its own for a change, even for a stricter one.
func (s *Store) retain(ctx context.Context, key string, until time.Time) error {
	out, err := s.head(ctx, key)
	if err != nil {
		return err
	}
	until = wholeSecond(until)
	mode, holds := s.lockMode(), aws.ToTime(out.ObjectLockRetainUntilDate)
	if mode == "" || holds.After(time.Now()) {
		mode = out.ObjectLockMode
	}
	if mode == "" {
		return fmt.Errorf("no mode of object-lock is given: %w", errors.ErrUnsupported)
	}
	if !holds.Before(until) {
		return nil
	}
	_, err = s.client.PutObjectRetention(ctx, &awss3.PutObjectRetentionInput{
		Bucket: &s.o.Bucket, Key: s.object(key),
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionMode(mode), RetainUntilDate: &until},
	})
	return err
}

// LockedUntil implements [storage.Locker]. Keys without s3:GetObjectRetention
// are not told of locks.
func (s *Store) LockedUntil(ctx context.Context, key string) (until time.Time, err error) {
	if err = storage.CheckKey(key); err == nil {
		until, err = s.lockedUntil(ctx, key)
	}
	if err != nil {
		return time.Time{}, s.fail(ctx, opStat, key, err)
	}
	return until, nil
}

func (s *Store) lockedUntil(ctx context.Context, key string) (time.Time, error) {
	out, err := s.head(ctx, key)
	if err != nil {
		return time.Time{}, err
	}
	if out.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn {
		return time.Time{}, fmt.Errorf("%w: by a legal hold", storage.ErrRetained)
	}
	if until := aws.ToTime(out.ObjectLockRetainUntilDate); until.After(time.Now()) {
		return until, nil
	}
	return time.Time{}, nil
}

// wholeSecond rounds up, since S3 keeps seconds.
func wholeSecond(t time.Time) time.Time {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second).UTC()
}

// Sweep implements [storage.Sweeper]: it aborts multipart uploads, and removes
// probes. MinIO lists no uploads below a prefix; it aborts those older than a
// day itself.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	err := storage.CheckPrefix(prefix)
	uploads, probes := 0, 0
	if err == nil {
		uploads, err = s.sweepUploads(ctx, prefix, before)
	}
	if err == nil && strings.HasPrefix(probePrefix, prefix) {
		probes, err = s.sweepProbes(ctx, before)
	}
	if err != nil {
		err = s.fail(ctx, opSweep, prefix, err)
	}
	return uploads + probes, err
}

func (s *Store) sweepUploads(ctx context.Context, prefix string, before time.Time) (swept int, err error) {
	pages := awss3.NewListMultipartUploadsPaginator(s.client, &awss3.ListMultipartUploadsInput{
		Bucket: &s.o.Bucket, Prefix: s.object(prefix),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return swept, err
		}
		for _, u := range page.Uploads {
			if u.Initiated == nil || !u.Initiated.Before(before) || !strings.HasPrefix(aws.ToString(u.Key), s.prefix+prefix) {
				continue
			}
			if err := s.abortLeft(ctx, u); err != nil {
				return swept, err
			}
			swept++
		}
	}
	return swept, nil
}

func (s *Store) abortLeft(ctx context.Context, u types.MultipartUpload) error {
	_, err := s.client.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: u.Key, UploadId: u.UploadId,
	})
	if code(err) == "NoSuchUpload" { // it was finished, or somebody else sweeps
		return nil
	}
	return err
}

func (s *Store) sweepProbes(ctx context.Context, before time.Time) (swept int, err error) {
	for obj, err := range s.list(ctx, probePrefix) {
		if err != nil {
			return swept, err
		}
		if obj.Modified.IsZero() || !obj.Modified.Before(before) {
			continue
		}
		if err := s.remove(ctx, obj.Key); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, nil
}

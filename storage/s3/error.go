package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

var (
	errWantsTLS = errors.New("the port speaks HTTPS")
	errNotS3    = errors.New("what answers there is no S3 server")
)

// operation names what was attempted, and what S3 wants the keys to be allowed.
type operation struct {
	verb    string
	actions string
	onKey   bool // on one object: what is not there is that
}

var (
	opOpen   = operation{"open", "s3:ListBucket", false}
	opPut    = operation{"put", "s3:PutObject", false}
	opProbe  = operation{"probe for create-only", "s3:PutObject and s3:DeleteObject", false}
	opGet    = operation{"get", "s3:GetObject", true}
	opStat   = operation{"stat", "s3:GetObject and s3:ListBucket", true}
	opList   = operation{"list", "s3:ListBucket", false}
	opDelete = operation{"delete", "s3:DeleteObject", true}
	opSweep  = operation{"sweep", "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload", false}
	opRetain = operation{"retain", "s3:PutObjectRetention", true}
)

// opError is what became of an operation, in words. It wraps a storage error
// that callers branch on, if one fits, and the SDK's error, which it does not
// print: that one is long and leaves out what to do.
type opError struct {
	op    string
	kind  error // or nil
	text  string
	cause error
}

func (e *opError) Error() string {
	parts := []string{e.op}
	if e.kind != nil {
		parts = append(parts, e.kind.Error())
	}
	if e.text != "" {
		parts = append(parts, e.text)
	}
	return strings.Join(parts, ": ")
}

func (e *opError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// fail describes the error of an operation on a key.
func (s *Store) fail(ctx context.Context, op operation, key string, err error) error {
	e := &opError{op: op.verb + " " + s.url(key), cause: err}
	if ended := context.Cause(ctx); ended != nil {
		e.kind = ended
		return e
	}
	if isSource(err) {
		e.text = err.Error()
		return e
	}
	var step *opError
	if errors.As(err, &step) {
		return err
	}
	e.text, e.kind = s.explain(op, err)
	return e
}

// explain says in words what went wrong, and which storage error that is, if any.
func (s *Store) explain(op operation, err error) (text string, kind error) {
	var credentials *credentialsError
	if errors.As(err, &credentials) {
		return "no credentials found in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials and ~/.aws/config, " +
			"web identity, container or instance metadata: " + last(credentials.err), storage.ErrDenied
	}
	for _, known := range []error{storage.ErrExist, storage.ErrNotExist, storage.ErrRetained} {
		if errors.Is(err, known) {
			return strings.TrimPrefix(strings.TrimPrefix(err.Error(), known.Error()), ": "), known
		}
	}
	switch {
	case code(err) != "":
		return s.explainCode(op, err)
	case status(err) != 0:
		return s.explainStatus(op, err)
	}
	return s.explainConnection(err)
}

// explainCode knows S3's names of errors.
func (s *Store) explainCode(op operation, err error) (text string, kind error) {
	said := said(err)
	switch code(err) {
	case "NoSuchBucket":
		return fmt.Sprintf("there is no bucket %s on this server", s.o.Bucket), nil
	case "NoSuchKey":
		return "", storage.ErrNotExist
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect", "IllegalLocationConstraintException":
		return s.wrongRegion(err), nil
	case "RequestTimeTooSkewed":
		return clockOff(err) + ": " + said, storage.ErrDenied
	case "InvalidAccessKeyId", "XAdminUserNotFound": // the latter is versitygw's
		return "the server does not know the access key; check AWS_ACCESS_KEY_ID or the profile: " + said, storage.ErrDenied
	case "SignatureDoesNotMatch":
		return "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY or the profile: " + said, storage.ErrDenied
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken":
		return "the session has expired or is not valid, get new keys: " + said, storage.ErrDenied
	case "ObjectLocked":
		return said, storage.ErrRetained
	case "InvalidRequest", "ObjectLockConfigurationNotFoundError":
		if strings.Contains(strings.ReplaceAll(said, " ", ""), "ObjectLockConfiguration") {
			return "the bucket was not made with object lock: " + said, nil
		}
	case "InvalidObjectState":
		return "the object is archived; restore it to a storage class that can be read first: " + said, nil
	}
	return s.explainStatus(op, err)
}

// explainStatus goes by the status where the code is not telling: the answer to
// a HEAD has no body that could hold one.
func (s *Store) explainStatus(op operation, err error) (text string, kind error) {
	said := said(err)
	switch status := status(err); {
	case (status == http.StatusBadRequest || status == http.StatusNotImplemented) && strings.Contains(strings.ToLower(said), "checksum"):
		return "if the server knows no such checksums, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required: " + said, nil
	case status == http.StatusForbidden && strings.Contains(strings.ToLower(said), "object lock"):
		return said, storage.ErrRetained
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Sprintf("these keys may not %s there: %s", op.actions, said), storage.ErrDenied
	case status == http.StatusNotFound && op.onKey:
		return "", storage.ErrNotExist
	case status == http.StatusNotFound:
		return fmt.Sprintf("%s: there is no bucket %s, or no S3 server: %s", s.server(), s.o.Bucket, said), nil
	case status == http.StatusMovedPermanently, status == http.StatusTemporaryRedirect:
		return s.wrongRegion(err), nil
	case status == http.StatusNotImplemented, status == http.StatusInsufficientStorage:
		return said, nil
	case status >= http.StatusInternalServerError:
		return "the server can't do it now: " + said, storage.ErrUnreachable
	}
	return said, nil
}

// explainConnection knows what keeps the server from saying anything.
func (s *Store) explainConnection(err error) (text string, kind error) {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		verify    *tls.CertificateVerificationError
		network   net.Error
		dns       *net.DNSError
		send      *smithyhttp.RequestSendError
	)
	server := s.server()
	switch {
	case errors.Is(err, errNotS3):
		return fmt.Sprintf("%s: %v: check the endpoint", server, errNotS3), nil
	case speaksTLS(err):
		return server + ": the port speaks HTTPS: give endpoint=https://…", storage.ErrUnreachable
	case speaksPlain(err):
		return server + ": the port does not speak HTTPS: give endpoint=http://… if that is meant", storage.ErrUnreachable
	case errors.As(err, &authority):
		return server + ": its certificate is of an authority unknown here; give ca-file=… with that authority's certificate: " + last(authority), storage.ErrUnreachable
	case errors.As(err, &host):
		return server + ": its certificate is for another name: " + last(host), storage.ErrUnreachable
	case errors.As(err, &verify):
		return server + ": its certificate is not valid: " + last(verify), storage.ErrUnreachable
	case errors.As(err, &dns) && dns.IsNotFound && strings.HasPrefix(dns.Name, s.o.Bucket+"."):
		return fmt.Sprintf("there is no host %s; give path-style=true if the server has its buckets in the path", dns.Name), storage.ErrUnreachable
	case !s.answered.Load() && strings.HasPrefix(server, "http://") && closedAtOnce(err):
		return server + ": if the port speaks HTTPS, give endpoint=https://…: " + last(err), storage.ErrUnreachable
	case errors.As(err, &send), errors.As(err, &network), errors.As(err, new(*brokenOff)):
		return server + ": " + last(err), storage.ErrUnreachable
	}
	return last(err), nil
}

func speaksTLS(err error) bool {
	return errors.Is(err, errWantsTLS) || strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}

// closedAtOnce is what else a port does that wants TLS.
func closedAtOnce(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

func speaksPlain(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func (s *Store) server() string {
	if base := s.client.Options().BaseEndpoint; base != nil {
		return *base
	}
	return "Amazon S3 in " + s.client.Options().Region
}

var expecting = regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`)

func (s *Store) wrongRegion(err error) string {
	region := ""
	if resp := response(err); resp != nil {
		region = resp.Header.Get("X-Amz-Bucket-Region")
	}
	if m := expecting.FindStringSubmatch(said(err)); region == "" && m != nil {
		region = m[1]
	}
	have := s.client.Options().Region
	if region == "" || region == have {
		return fmt.Sprintf("the bucket is not in the region %s or not at this endpoint: %s", have, said(err))
	}
	return fmt.Sprintf("the bucket is in %s, not in %s: give region=%s", region, have, region)
}

// clockOff compares this machine's clock with the server's, which its answer
// bears.
func clockOff(err error) string {
	resp := response(err)
	if resp == nil {
		return "this machine's clock is off the server's"
	}
	theirs, dateErr := http.ParseTime(resp.Header.Get("Date"))
	if dateErr != nil {
		return "this machine's clock is off the server's"
	}
	off, direction := time.Since(theirs), "ahead of"
	if off < 0 {
		off, direction = -off, "behind"
	}
	unit := time.Minute
	if off < 2*time.Minute {
		unit = time.Second
	}
	return fmt.Sprintf("this machine's clock is %s %s the server's", strings.TrimSuffix(off.Round(unit).String(), "0s"), direction)
}

// code is S3's name of an error, "" if the server named none.
func code(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	return api.ErrorCode()
}

// said is what the server said, in one line.
func said(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return last(err)
	}
	text := api.ErrorCode()
	if api.ErrorMessage() != "" {
		text += ": " + api.ErrorMessage()
	}
	var id interface{ ServiceRequestID() string }
	if errors.As(err, &id) && id.ServiceRequestID() != "" {
		text += " (request " + id.ServiceRequestID() + ")"
	}
	return text
}

func response(err error) *smithyhttp.Response {
	var e *smithyhttp.ResponseError
	if !errors.As(err, &e) {
		return nil
	}
	return e.Response
}

// status is the HTTP status, 0 if there was no answer.
func status(err error) int {
	var e *smithyhttp.ResponseError
	if !errors.As(err, &e) || e.Response == nil {
		return 0
	}
	return e.HTTPStatusCode()
}

// last is the text without the layers that the SDK and net/http put around it.
func last(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		err = send.Err
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return err.Error()
}

// notFound is about the object: what there is no bucket for has another code,
// except in the answer to a HEAD.
func notFound(err error) bool {
	return code(err) == "NoSuchKey" || code(err) == "NotFound"
}

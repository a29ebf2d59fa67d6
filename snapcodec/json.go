package snapcodec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON values from a stream, forward only, through one buffer.
// It is made for what encoding/json writes and does not check more than it
// needs to find its way.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int   // what of buf is not read yet
	base     int64 // offset of buf[0] in the stream
	hold     int   // start in buf of a token in use, or -1: fill keeps it
	depth    int
	readErr  error
}

const (
	// maxString bounds one decoded string in bytes. etcd's v2 API takes bodies
	// of 10 MB at most.
	maxString = 16 << 20
	// maxDepth is how deep encoding/json nests before it gives up.
	maxDepth = 10000
)

// jsonError is damage at an offset of the stream.
type jsonError struct {
	off   int64
	cause error
}

func (e *jsonError) Error() string { return fmt.Sprintf("offset %d: %v", e.off, e.cause) }
func (e *jsonError) Unwrap() error { return e.cause }

func newScanner(r io.Reader, buffer int) *scanner {
	return &scanner{r: r, buf: make([]byte, buffer), hold: -1}
}

// offset is the stream offset of the next byte.
func (s *scanner) offset() int64 { return s.base + int64(s.pos) }

func (s *scanner) fail(format string, args ...any) error {
	return &jsonError{s.offset(), fmt.Errorf(format, args...)}
}

var errStoreEnd = errors.New("store ends early")

// fill reads more. Bytes from hold on stay in the buffer, and move.
func (s *scanner) fill() error {
	if s.readErr == nil {
		s.shift()
		for range 100 {
			n, err := s.r.Read(s.buf[s.end:])
			s.end += n
			s.readErr = err
			if n > 0 {
				return nil
			}
			if err != nil {
				break
			}
		}
	}
	switch s.readErr {
	case nil:
		return io.ErrNoProgress
	case io.EOF:
		return &jsonError{s.offset(), errStoreEnd}
	}
	return s.readErr
}

// shift moves what is still in use to the front of the buffer.
func (s *scanner) shift() {
	from := s.pos
	if s.hold >= 0 {
		from = s.hold
		s.hold = 0
	}
	copy(s.buf, s.buf[from:s.end])
	s.base += int64(from)
	s.pos -= from
	s.end -= from
}

// peek gives the next byte that is not white space, without taking it.
func (s *scanner) peek() (byte, error) {
	for {
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return 0, err
			}
		}
		switch c := s.buf[s.pos]; c {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return c, nil
		}
	}
}

func (s *scanner) expect(want byte) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != want {
		return s.fail("%q where %q should be", c, want)
	}
	s.pos++
	return nil
}

// literal takes a word such as null.
func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return err
			}
		}
		if s.buf[s.pos] != word[i] {
			return s.fail("%q in what should be %s", s.buf[s.pos], word)
		}
		s.pos++
	}
	return nil
}

// members calls fn for each name of an object, with the scanner before its
// value. fn takes the value; name is valid until then.
func (s *scanner) members(fn func(name []byte) error) error {
	if err := s.open('{'); err != nil {
		return err
	}
	var scratch []byte
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if err != nil || !more {
			return err
		}
		if scratch, err = s.string(scratch[:0]); err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := fn(scratch); err != nil {
			return err
		}
	}
}

// elements calls fn before each element of an array; fn takes it.
func (s *scanner) elements(fn func() error) error {
	if err := s.open('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more(']', first)
		if err != nil || !more {
			return err
		}
		if err := fn(); err != nil {
			return err
		}
	}
}

func (s *scanner) open(bracket byte) error {
	if s.depth++; s.depth > maxDepth {
		return s.fail("nested deeper than %d", maxDepth)
	}
	return s.expect(bracket)
}

// more takes a comma or the closing bracket.
func (s *scanner) more(bracket byte, first bool) (bool, error) {
	c, err := s.peek()
	if err != nil {
		return false, err
	}
	switch {
	case c == bracket:
		s.pos++
		s.depth--
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.pos++
		return true, nil
	}
	return false, s.fail("%q where ',' or %q should be", c, bracket)
}

// uint takes a number without sign, fraction or exponent.
func (s *scanner) uint() (uint64, error) {
	if _, err := s.peek(); err != nil {
		return 0, err
	}
	var n uint64
	for digits := 0; ; digits++ {
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return 0, err
			}
		}
		c := s.buf[s.pos] - '0'
		if c > 9 {
			if digits == 0 {
				return 0, s.fail("%q where a number should be", s.buf[s.pos])
			}
			return n, nil
		}
		if n > (1<<64-1-uint64(c))/10 {
			return 0, s.fail("number above 64 bits")
		}
		n = n*10 + uint64(c)
		s.pos++
	}
}

// token takes a string without copying it where possible: it is then held in
// the buffer until release, and held gives it. When it has escapes or is long,
// it goes to dst.
func (s *scanner) token(dst []byte) (decoded []byte, heldLen int, err error) {
	if err := s.expect('"'); err != nil {
		return dst, 0, err
	}
	for range 2 {
		if n := bytes.IndexByte(s.buf[s.pos:s.end], '"'); n >= 0 {
			if n < len(s.buf)/2 && bytes.IndexByte(s.buf[s.pos:s.pos+n], '\\') < 0 {
				s.hold = s.pos
				s.pos += n + 1
				return dst, n, nil
			}
			break
		}
		if s.end-s.pos >= len(s.buf)/2 {
			break
		}
		if err := s.fill(); err != nil {
			return dst, 0, err
		}
	}
	dst, err = s.rest(dst)
	return dst, -1, err
}

// held is the token of n bytes that token left in the buffer.
func (s *scanner) held(n int) []byte { return s.buf[s.hold : s.hold+n : s.hold+n] }

func (s *scanner) release() { s.hold = -1 }

// string takes a string and appends it, decoded, to dst.
func (s *scanner) string(dst []byte) ([]byte, error) {
	dst, n, err := s.token(dst)
	if err != nil || n < 0 {
		return dst, err
	}
	dst = append(dst, s.held(n)...)
	s.release()
	return dst, nil
}

// rest decodes a string whose opening quote is taken.
func (s *scanner) rest(dst []byte) ([]byte, error) {
	for {
		run := s.run()
		if len(dst)+len(run) > maxString {
			return dst, s.fail("string longer than %d bytes", maxString)
		}
		dst = append(dst, run...)
		s.pos += len(run)
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return dst, err
			}
			continue
		}
		c := s.buf[s.pos]
		s.pos++
		if c == '"' {
			return dst, nil
		}
		var err error
		if dst, err = s.escape(dst); err != nil {
			return dst, err
		}
	}
}

// run is what of the buffer belongs to a string up to a quote or backslash.
func (s *scanner) run() []byte {
	b := s.buf[s.pos:s.end]
	if n := bytes.IndexByte(b, '"'); n >= 0 {
		b = b[:n]
	}
	if n := bytes.IndexByte(b, '\\'); n >= 0 {
		b = b[:n]
	}
	return b
}

// take gives the next byte of a string.
func (s *scanner) take() (byte, error) {
	if s.pos == s.end {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	c := s.buf[s.pos]
	s.pos++
	return c, nil
}

// escape decodes what follows a backslash.
func (s *scanner) escape(dst []byte) ([]byte, error) {
	c, err := s.take()
	if err != nil {
		return dst, err
	}
	switch c {
	case '"', '\\', '/':
		return append(dst, c), nil
	case 'b':
		return append(dst, '\b'), nil
	case 'f':
		return append(dst, '\f'), nil
	case 'n':
		return append(dst, '\n'), nil
	case 'r':
		return append(dst, '\r'), nil
	case 't':
		return append(dst, '\t'), nil
	case 'u':
		return s.unicode(dst)
	}
	return dst, s.fail("escape \\%c", c)
}

// unicode decodes what follows \u. Half a surrogate pair gives U+FFFD, as in
// encoding/json.
func (s *scanner) unicode(dst []byte) ([]byte, error) {
	r, err := s.hex4()
	for err == nil && utf16.IsSurrogate(r) {
		var paired bool
		if paired, err = s.pairFollows(); err != nil || !paired {
			break
		}
		var low rune
		if low, err = s.hex4(); err != nil {
			break
		}
		if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
			return utf8.AppendRune(dst, both), nil
		}
		dst, r = utf8.AppendRune(dst, utf8.RuneError), low
	}
	return utf8.AppendRune(dst, r), err
}

// pairFollows takes \u when it is next.
func (s *scanner) pairFollows() (bool, error) {
	for s.end-s.pos < 2 {
		if err := s.fill(); err != nil {
			return false, err
		}
	}
	if s.buf[s.pos] != '\\' || s.buf[s.pos+1] != 'u' {
		return false, nil
	}
	s.pos += 2
	return true, nil
}

func (s *scanner) hex4() (rune, error) {
	var r rune
	for range 4 {
		c, err := s.take()
		if err != nil {
			return 0, err
		}
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.fail("%q in a \\u escape", c)
		}
		r = r<<4 | rune(c)
	}
	return r, nil
}

// skip takes any value.
func (s *scanner) skip() error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	switch c {
	case '"':
		return s.skipString()
	case '{':
		return s.skipObject()
	case '[':
		return s.elements(s.skip)
	case 'n':
		return s.literal("null")
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	}
	return s.skipNumber()
}

func (s *scanner) skipObject() error {
	if err := s.open('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if err != nil || !more {
			return err
		}
		if err := s.skipString(); err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

func (s *scanner) skipString() error {
	if err := s.expect('"'); err != nil {
		return err
	}
	for {
		s.pos += len(s.run())
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return err
			}
			continue
		}
		s.pos++
		if s.buf[s.pos-1] == '"' {
			return nil
		}
		if _, err := s.take(); err != nil {
			return err
		}
	}
}

func (s *scanner) skipNumber() error {
	for digits := 0; ; digits++ {
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return err
			}
		}
		switch c := s.buf[s.pos]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			s.pos++
		case digits == 0:
			return s.fail("%q where a value should be", c)
		default:
			return nil
		}
	}
}

package s3

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// checksum compares what is read with what the server keeps of the whole
// object. The SDK does so only for what comes in one answer. Nil compares
// nothing.
type checksum struct {
	hash hash.Hash
	name string
	want string // base64
}

// nvme is the polynomial of the CRC-64 that Amazon computes of what comes
// without a checksum.
const nvme = 0x9a6c9329ac4bc9b5

// wholeSum is the checksum in the answer for a whole object, nil if there is
// none, or only one of its parts' checksums.
func wholeSum(out *awss3.GetObjectOutput) *checksum {
	if out.ChecksumType == types.ChecksumTypeComposite {
		return nil
	}
	for _, kept := range []struct {
		name string
		want *string
		hash func() hash.Hash
	}{
		{"CRC32C", out.ChecksumCRC32C, func() hash.Hash { return crc32.New(castagnoli) }},
		{"CRC64NVME", out.ChecksumCRC64NVME, func() hash.Hash { return crc64.New(crc64.MakeTable(nvme)) }},
		{"CRC32", out.ChecksumCRC32, func() hash.Hash { return crc32.NewIEEE() }},
		{"SHA256", out.ChecksumSHA256, sha256.New},
		{"SHA1", out.ChecksumSHA1, sha1.New},
	} {
		if want := aws.ToString(kept.want); want != "" && !strings.Contains(want, "-") {
			return &checksum{kept.hash(), kept.name, want}
		}
	}
	return nil
}

func (c *checksum) write(p []byte) {
	if c != nil {
		c.hash.Write(p)
	}
}

func (c *checksum) check() error {
	if c == nil {
		return nil
	}
	if got := base64.StdEncoding.EncodeToString(c.hash.Sum(nil)); got != c.want {
		return fmt.Errorf("checksum did not match: %s of what was read is %s, the server keeps %s", c.name, got, c.want)
	}
	return nil
}

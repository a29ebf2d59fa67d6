package snapcodec

import (
	"hash/crc32"
	"math/bits"
)

// castagnoli is the polynomial of every CRC that etcd writes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcCombine gives the CRC-32C of a followed by b from the CRCs of the two and
// the length of b in bytes, so that pieces can be hashed apart.
//
// Appending n zero bytes to a multiplies its remainder by x^(8n); the CRC of b
// is then added. Numbers are polynomials over GF(2) with bit 31 for x^0.
func crcCombine(a, b uint32, n int64) uint32 {
	return gfMul(a, gfShift(uint64(n))) ^ b
}

// gfShift is x^(8n) modulo the Castagnoli polynomial, by repeated squaring.
func gfShift(n uint64) uint32 {
	r := uint32(1) << 31
	for n != 0 {
		k := bits.TrailingZeros64(n)
		r = gfMul(r, gfPowers[k])
		n &= n - 1
	}
	return r
}

// gfPowers holds x^(8·2^k) for k from 0 to 63.
var gfPowers = makeGFPowers()

func makeGFPowers() (powers [64]uint32) {
	p := uint32(1) << 23 // x^8
	for k := range powers {
		powers[k] = p
		p = gfMul(p, p)
	}
	return powers
}

// gfMul multiplies two polynomials modulo the Castagnoli polynomial.
func gfMul(a, b uint32) uint32 {
	var p uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			p ^= b
		}
		carry := b & 1
		b >>= 1
		b ^= crc32.Castagnoli & -carry
	}
	return p
}

package location

import (
	"errors"
	"math"
	"regexp"
	"strconv"
)

var (
	errSize   = errors.New("want bytes such as 512KiB, 10MiB or 1GiB")
	sizeText  = regexp.MustCompile(`^([0-9]{1,18})(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)?$`)
	sizeUnits = map[string]int64{
		"": 1, "B": 1,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
		"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	}
)

// ParseSize reads a number of bytes: "10MiB", "5GB", or digits alone.
func ParseSize(text string) (int64, error) {
	m := sizeText.FindStringSubmatch(text)
	if m == nil {
		return 0, errSize
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/sizeUnits[m[2]] {
		return 0, errSize
	}
	return n * sizeUnits[m[2]], nil
}

// sizeString is a size that ParseSize takes, "" for none.
func sizeString(n int64) string {
	if n <= 0 {
		return ""
	}
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n%sizeUnits[unit] == 0 {
			return strconv.FormatInt(n/sizeUnits[unit], 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

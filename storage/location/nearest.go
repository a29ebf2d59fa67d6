package location

import "strings"

// Nearest is the word that takes the fewest changes to text, "" unless they are
// few: what was likely meant by a name that there isn't. Capitals, and _ for -,
// are no change.
func Nearest(text string, words []string) string {
	fold := func(word string) string { return strings.ReplaceAll(strings.ToLower(word), "_", "-") }
	best, fewest := "", 2+len(text)/3
	for _, w := range words {
		if n := distance(fold(text), fold(w)); n < fewest {
			best, fewest = w, n
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	older, old := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old = old, row
	}
	return old[len(y)]
}

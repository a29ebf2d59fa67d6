package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// ConfigError is all that is wrong with a configuration, in the order of the
// file.
type ConfigError struct {
	Problems []Problem
}

// Problem is one thing that is wrong, or worth a warning.
type Problem struct {
	File    string // name of the file
	Line    int    // from 1; 0: not known
	Column  int    // in characters, from 1; 0: not known
	Path    string // of the value, such as jobs.nightly.schedule
	Message string
	Source  string // the line up to what is wrong, if it surely holds no secret
}

// Error is one or three lines for each problem.
func (e *ConfigError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.String()
	}
	return strings.Join(texts, "\n")
}

// String says where and what, and shows the place in the file.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Source != "" {
		number := fmt.Sprintf("%5d", p.Line)
		fmt.Fprintf(&b, "\n%s | %s\n%s | %s^", number, p.Source, strings.Repeat(" ", len(number)), pad(p.Source, p.Column-1))
	}
	return b.String()
}

// pad is as wide as the first n characters of a line, tabs included.
func pad(line string, n int) string {
	runes := []rune(line)
	for i, r := range runes {
		if r != '\t' {
			runes[i] = ' '
		}
	}
	return string(runes[:min(n, len(runes))])
}

// place is where a value stands in the file.
type place struct {
	line, column int // from 1, in characters
	width        int // of what stands there, on its first line
}

// source is the configuration file's text and what was found wrong with it.
type source struct {
	name     string
	lines    []string
	places   map[string]place
	hidden   map[int]int // columns from which lines are not to be printed
	problems []Problem
}

func newSource(name string, data []byte) *source {
	return &source{
		name: name, places: map[string]place{}, hidden: map[int]int{},
		lines: strings.Split(string(data), "\n"),
	}
}

// add notes a problem at a place.
func (s *source) add(at place, path, format string, args ...any) {
	s.problems = append(s.problems, Problem{
		File: s.name, Line: at.line, Column: at.column, Path: path,
		Message: fmt.Sprintf(format, args...), Source: s.excerpt(at),
	})
}

// hide keeps some lines out of excerpts, the first from a place on.
func (s *source) hide(at place, lines int) {
	for i := range lines {
		if from, ok := s.hidden[at.line+i]; !ok || at.column < from {
			s.hidden[at.line+i] = at.column
		}
		at.column = 1
	}
}

// within tells whether a path leads on from another.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "["))
}

// excerpt is the line up to the end of what is meant.
func (s *source) excerpt(at place) string {
	if at.line < 1 || at.line > len(s.lines) {
		return ""
	}
	line := []rune(strings.TrimRight(s.lines[at.line-1], "\r"))
	end := min(len(line), at.column-1+at.width)
	if at.column < 1 || at.column > len(line) || end < at.column {
		return ""
	}
	return string(line[:end])
}

// err is nil or all problems once, in the order of the file.
func (s *source) err() error {
	if len(s.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(s.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	problems := slices.Compact(s.problems)
	for i, p := range problems {
		if from, ok := s.hidden[p.Line]; ok && utf8.RuneCountInString(p.Source) >= from {
			problems[i].Source = ""
		}
	}
	return &ConfigError{Problems: problems}
}

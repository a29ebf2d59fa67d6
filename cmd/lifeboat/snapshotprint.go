package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// writeOutFlag is the -w of etcdctl and etcdutl, for the commands that stand in
// for theirs.
type writeOutFlag string

const (
	writeOutSimple   writeOutFlag = "simple"
	writeOutFields   writeOutFlag = "fields"
	writeOutJSON     writeOutFlag = "json"
	writeOutTable    writeOutFlag = "table"
	writeOutProtobuf writeOutFlag = "protobuf"
)

// errNoProtobuf is etcdutl's own answer.
var errNoProtobuf = errors.New("protobuf not supported as output format")

var _ pflag.Value = (*writeOutFlag)(nil)

func (o *writeOutFlag) String() string { return string(*o) }
func (o *writeOutFlag) Type() string   { return "simple|fields|json|table" }

// Set takes one of the formats that etcdutl knows.
func (o *writeOutFlag) Set(value string) error {
	switch f := writeOutFlag(value); f {
	case writeOutSimple, writeOutFields, writeOutJSON, writeOutTable, writeOutProtobuf:
		*o = f
		return nil
	}
	return errors.New("want simple, fields, json or table")
}

func addWriteOutFlag(cmd *cobra.Command, o *writeOutFlag) {
	*o = writeOutSimple
	cmd.Flags().VarP(o, "write-out", "w", "format of the results")
}

// addIgnoredWriteOut is for commands that print nothing which has a format;
// etcdctl and etcdutl take the flag everywhere.
func addIgnoredWriteOut(cmd *cobra.Command) {
	addWriteOutFlag(cmd, new(writeOutFlag))
	_ = cmd.Flags().MarkHidden("write-out")
}

// writeOutField is one figure, in the ways that etcdutl prints it.
type writeOutField struct {
	header string // of the table
	name   string // in fields
	text   string // in simple and table
	value  any    // in fields
}

// writeOut prints figures byte for byte as etcdutl 3.7 does; report is for json.
func writeOut(w io.Writer, format writeOutFlag, report any, fields []writeOutField) error {
	text, err := formatOut(format, report, fields)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

func formatOut(format writeOutFlag, report any, fields []writeOutField) (string, error) {
	var b strings.Builder
	switch format {
	case writeOutJSON:
		text, err := json.Marshal(report)
		return string(text) + "\n", err
	case writeOutFields:
		for _, f := range fields {
			fmt.Fprintf(&b, "\"%s\" : %v\n", f.name, f.value)
		}
	case writeOutTable:
		drawTable(&b, fields)
	default:
		for i, f := range fields {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(f.text)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// drawTable draws one row below its header: headers in the middle, values at
// the right, a blank on both sides.
func drawTable(b *strings.Builder, fields []writeOutField) {
	widths := make([]int, len(fields))
	for i, f := range fields {
		widths[i] = max(utf8.RuneCountInString(f.header), utf8.RuneCountInString(f.text))
	}
	rule := func(left, middle, right string) {
		for _, width := range widths {
			b.WriteString(left + strings.Repeat("─", width+2))
			left = middle
		}
		b.WriteString(right + "\n")
	}
	rule("┌", "┬", "┐")
	for i, f := range fields {
		room := widths[i] - utf8.RuneCountInString(f.header)
		fmt.Fprintf(b, "│ %s%s%s ", strings.Repeat(" ", room/2), strings.ToUpper(f.header), strings.Repeat(" ", room-room/2))
	}
	b.WriteString("│\n")
	rule("├", "┼", "┤")
	for i, f := range fields {
		fmt.Fprintf(b, "│ %*s ", widths[i], f.text)
	}
	b.WriteString("│\n")
	rule("└", "┴", "┘")
}

// humanSize writes bytes as etcdutl does: decimal units, a fraction below ten.
func humanSize(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	if n < 10 {
		return fmt.Sprintf("%d B", n)
	}
	unit := min(int(math.Floor(math.Log(float64(n))/math.Log(1000))), len(units)-1)
	size := math.Floor(float64(n)/math.Pow(1000, float64(unit))*10+0.5) / 10
	if size < 10 {
		return fmt.Sprintf("%.1f %s", size, units[unit])
	}
	return fmt.Sprintf("%.0f %s", size, units[unit])
}

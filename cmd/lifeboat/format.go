package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// outputFlag is the -o that every command has that prints facts.
type outputFlag string

const (
	outputTable outputFlag = "table"
	outputJSON  outputFlag = "json"
)

var _ pflag.Value = (*outputFlag)(nil)

func (o *outputFlag) String() string { return string(*o) }
func (o *outputFlag) Type() string   { return "table|json" }

// Set takes one of the known formats.
func (o *outputFlag) Set(value string) error {
	switch f := outputFlag(value); f {
	case outputTable, outputJSON:
		*o = f
		return nil
	}
	return fmt.Errorf("want table or json")
}

func addOutputFlag(cmd *cobra.Command, o *outputFlag) {
	*o = outputTable
	cmd.Flags().VarP(o, "output", "o", "format of the results")
}

// printJSON writes v indented, as the stable contract that docs/ describes.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

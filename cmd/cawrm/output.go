package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

// jsonFlag is --json of every command that prints data; TestJSON holds them to it.
type jsonFlag bool

func (f *jsonFlag) add(c *cobra.Command) {
	c.Flags().BoolVar((*bool)(f), "json", false, "print JSON")
}

// say prints v as JSON where that was asked for, else the text, which may be empty.
func (f jsonFlag) say(c *cobra.Command, v any, format string, args ...any) error {
	if f {
		return printJSON(c, v)
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), format, args...)
	return err
}

// printJSON prints one value. Names come from people, who may call a volume <db>.
func printJSON(c *cobra.Command, v any) error {
	enc := json.NewEncoder(c.OutOrStdout())
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	return nil
}

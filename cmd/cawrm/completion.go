package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete commands, flags, and names of volumes and mirrors",
		Long: `Print a script for a shell, which completes commands and flags, and asks the running daemon for names of volumes and mirrors.
Packages install it.`,
		Example: `  source <(cawrm completion bash)
  cawrm completion zsh > "${fpath[1]}/_cawrm"
  cawrm completion fish > ~/.config/fish/completions/cawrm.fish`,
		Args:      exactArgs("bash|zsh|fish"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			switch args[0] {
			case "bash":
				if _, err := io.WriteString(out, bashAlone); err != nil {
					return err
				}
				return c.Root().GenBashCompletionV2(out, true)
			case "zsh":
				return c.Root().GenZshCompletion(out)
			case "fish":
				return c.Root().GenFishCompletion(out, true)
			}
			return usagef("%q is none of bash, zsh, fish", args[0])
		},
	}
}

// bashAlone is what the script needs of the package bash-completion, for a bash that has not got it.
const bashAlone = `declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() {
    words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
    cur=${words[cword]} prev=${words[cword-1]}
}

`

// completeTime bounds how long a shell waits for the daemon.
const completeTime = time.Second

// completeNames makes every command complete the arguments that its usage calls NAME and ID, so that a new command need not
// think of it. What is called PATH, FILE or DIR is a file.
func completeNames(c *cobra.Command) {
	for _, sub := range c.Commands() {
		completeNames(sub)
	}
	if c.ValidArgsFunction != nil || c.ValidArgs != nil || c.HasSubCommands() {
		return
	}
	words := strings.Fields(c.Use)[1:]
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(words) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		switch word := strings.Trim(words[len(args)], "[]."); {
		case strings.HasPrefix(word, "NAME"):
			return askNames(c, ""), cobra.ShellCompDirectiveNoFileComp
		case word == "ID" || word == "MIRROR":
			return askNames(c, args[len(args)-1]), cobra.ShellCompDirectiveNoFileComp
		case strings.HasPrefix(word, "PATH") || word == "FILE" || word == "DIR" || strings.HasPrefix(word, "/dev"):
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// askNames are the volumes of the running daemon, or the mirrors of one; none when nobody answers.
func askNames(c *cobra.Command, volume string) (names []string) {
	var f controlFlag
	if given := c.Flags().Lookup("control"); given != nil && given.Changed {
		if f.Set(given.Value.String()) != nil {
			return nil
		}
	}
	client, err := f.client()
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	s, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	for _, v := range s.Volumes {
		if volume == "" {
			names = append(names, v.Name)
		}
		for _, m := range v.Mirrors {
			if v.Name == volume {
				names = append(names, m.ID)
			}
		}
	}
	return names
}

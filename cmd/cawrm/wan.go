package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/cmd/internal/show"
	"cawrm/cmd/internal/value"
	"cawrm/wan"
)

func newWan() *cobra.Command {
	c := &cobra.Command{
		Use:   "wan",
		Short: "Put a bad line between two endpoints, for tests",
		Long: `Emulate the line between two sites: delay, jitter, rate, stalls, cuts and, as root, loss.

A PROFILE is one of ` + strings.Join(wan.Names(), ", ") + `, or a file:

  base = "wan"        # start from a named profile; all else is optional
  rtt = "40ms"        # there and back
  rate = "50Mbit"     # each way
  jitter = "2ms"
  loss = "0.1%"       # of the packets: --mode netem or tun, as root
  reorder = "0.5%"    # likewise
  queue = "256K"      # bytes that may wait; default: one bandwidth-delay product
  congestion = "bbr"  # TCP congestion control across the line
  seed = 7            # of jitter, loss and reordering
  repeat = "30s"      # the steps start over

  [[step]]            # cut, stall, refuse, heal, cut-after BYTES,
  at = "10s"          # rate RATE, delay DURATION, jitter DURATION, loss PERCENT
  do = "stall"

How the line is made is told by --mode: relay passes byte streams on, needs no root and knows no loss; netem and tun
lead the kernel's own TCP through two network namespaces, joined by a veth pair with netem, or where the kernel has none by two
TUN devices with a forwarder. auto takes a relay unless the profile asks for loss or reordering and this is root.`,
		Example: `  cawrm wan show
  cawrm wan run wan --listen 127.0.0.1:20810 --to 10.0.0.2:10810`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(newWanRun(), newWanShow())
	return c
}

// group is what a command does that only has commands below it.
func group(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q of %s", args[0], c.CommandPath())
	}
	c.SetOut(c.ErrOrStderr())
	_ = c.Help()
	return usagef("a command of %s is missing", c.CommandPath())
}

// modeFlag is --mode.
func modeFlag(c *cobra.Command, f *value.Choice) {
	*f = value.Choice{Value: string(wan.Auto), Words: wan.Modes()}
	c.Flags().Var(f, "mode", "how the line is made: "+strings.Join(wan.Modes(), ", "))
}

type wanRunFlags struct {
	listen, to value.Addr
	mode       value.Choice
	congestion string
	seed       uint64
	span       time.Duration
}

func newWanRun() *cobra.Command {
	var f wanRunFlags
	c := &cobra.Command{
		Use:   "run PROFILE --listen ADDR --to ADDR",
		Short: "Carry connections over an emulated line until interrupted",
		Long: `Carry each connection made to --listen to --to, over one line like PROFILE, whose rate they share. What the profile's
steps do to the line is told as it happens; SIGINT or SIGTERM end it, and what went through is told at the end.`,
		Example: `  cawrm wan run wan --listen 127.0.0.1:20810 --to 10.0.0.2:10810
  cawrm wan run ./office.toml --listen :20810 --to 10.0.0.2:10810 --congestion cubic
  sudo cawrm wan run bad --mode tun --listen 127.0.0.1:20810 --to 10.0.0.2:10810`,
		Args: exactArgs("PROFILE"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	c.Flags().Var(&f.listen, "listen", "take connections at host:port or unix:/path")
	c.Flags().Var(&f.to, "to", "carry them to host:port or unix:/path")
	modeFlag(c, &f.mode)
	c.Flags().StringVar(&f.congestion, "congestion", "", "TCP congestion control, such as bbr or cubic (default: the profile's, else the system's)")
	c.Flags().Uint64Var(&f.seed, "seed", 0, "seed of jitter, loss and reordering (default: the profile's)")
	c.Flags().DurationVar(&f.span, "for", 0, "end after so long (default: when interrupted)")
	return c
}

func (f *wanRunFlags) run(c *cobra.Command, profile string) error {
	switch {
	case f.listen.IsZero():
		return usagef("--listen ADDR is missing")
	case f.to.IsZero():
		return usagef("--to ADDR is missing")
	}
	p, err := wan.Find(profile)
	if err != nil {
		return usageError{err}
	}
	if f.congestion != "" {
		p.Congestion = f.congestion
	}
	if c.Flags().Changed("seed") {
		p.Seed = f.seed
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if f.span > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.span)
		defer cancel()
	}
	l, err := wan.ListenIn(context.Background(), wan.Mode(f.mode.Value), f.listen.String(), f.to.String(), p)
	if err != nil {
		return fmt.Errorf("wan: %w", err)
	}
	defer l.Close()
	out := c.OutOrStdout()
	introduce(out, l, f.to.String())
	start := time.Now()
	err = l.Play(ctx, func(s wan.Step) { fmt.Fprintf(out, "%6.1f s  %s\n", time.Since(start).Seconds(), s.Do) })
	if err == nil {
		<-ctx.Done()
	}
	n := l.Counters()
	fmt.Fprintf(out, "%d connections, %s there, %s back, %d cuts\n", n.Connections, show.Bytes(n.ToTarget), show.Bytes(n.FromTarget), n.Cuts)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// introduce says what line this is, and what the profile asks that it cannot do.
func introduce(out io.Writer, l *wan.Link, to string) {
	p := l.Profile()
	fmt.Fprintf(out, "%s\nmade by %s, congestion control %s\n", p, l.Mode(), l.Congestion())
	if l.Mode() == wan.Relay && (p.Loss > 0 || p.Reorder > 0) {
		fmt.Fprintf(out, "a relay passes streams on: no loss, no reordering (--mode netem or tun, as root, has both)\n")
	}
	fmt.Fprintf(out, "carrying %s to %s\n", l.Addr(), to)
}

type wanShowFlags struct {
	mode      value.Choice
	json      jsonFlag
	noMeasure bool
}

func newWanShow() *cobra.Command {
	var f wanShowFlags
	c := &cobra.Command{
		Use:   "show [PROFILE...]",
		Short: "Show the profiles, and how well this machine keeps to them",
		Long: `Show what the profiles ask and what is measured of a line made that way on this machine's loopback: the round trip of
a single byte, and the rate of one TCP connection. It takes a second or two for each.`,
		Example: `  cawrm wan show
  cawrm wan show wan ./office.toml --json
  sudo cawrm wan show --mode tun`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	modeFlag(c, &f.mode)
	f.json.add(c)
	c.Flags().BoolVar(&f.noMeasure, "no-measure", false, "only show what the profiles ask")
	return c
}

// wanRow is a line of the table, and an object of the JSON. Rates are bits a second.
type wanRow struct {
	Name        string    `json:"name"`
	RTTSeconds  float64   `json:"rtt_seconds"`
	JitterSecs  float64   `json:"jitter_seconds"`
	RateBps     float64   `json:"rate_bps"` // 0: unlimited
	LossShare   float64   `json:"loss"`
	Reorder     float64   `json:"reorder"`
	Steps       []wanStep `json:"steps,omitempty"`
	RepeatSecs  float64   `json:"repeat_seconds,omitempty"`
	Mode        string    `json:"mode,omitempty"`
	Congestion  string    `json:"congestion,omitempty"`
	MeasuredRTT float64   `json:"measured_rtt_seconds,omitempty"`
	MeasuredBps float64   `json:"measured_rate_bps,omitempty"`

	profile wan.Profile
}

type wanStep struct {
	AtSeconds float64 `json:"at_seconds"`
	Do        string  `json:"do"`
}

func (f *wanShowFlags) run(c *cobra.Command, names []string) error {
	if len(names) == 0 {
		names = wan.Names()
	}
	var rows []wanRow
	for _, name := range names {
		p, err := wan.Find(name)
		if err != nil {
			return usageError{err}
		}
		rows = append(rows, newWanRow(p))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	for i := range rows {
		if f.noMeasure {
			break
		}
		meter := show.NewMeter(c.ErrOrStderr())
		meter.Step("measuring "+rows[i].Name, 0, 0)
		err := rows[i].measure(ctx, wan.Mode(f.mode.Value))
		meter.Close()
		if err != nil {
			return fmt.Errorf("wan: %s: %w", rows[i].Name, err)
		}
	}
	if f.json {
		return printJSON(c, rows)
	}
	return printWan(c.OutOrStdout(), rows, !f.noMeasure)
}

func newWanRow(p wan.Profile) wanRow {
	r := wanRow{
		Name: p.Name, RTTSeconds: 2 * p.Delay.Seconds(), JitterSecs: p.Jitter.Seconds(), RateBps: 8 * float64(p.Rate),
		LossShare: p.Loss, Reorder: p.Reorder, RepeatSecs: p.Repeat.Seconds(), profile: p,
	}
	for _, s := range p.Script {
		r.Steps = append(r.Steps, wanStep{s.At.Seconds(), s.Do})
	}
	return r
}

func (r *wanRow) measure(ctx context.Context, mode wan.Mode) error {
	m, err := wan.Measure(ctx, mode, r.profile)
	if err != nil {
		return err
	}
	r.Mode, r.Congestion = string(m.Mode), m.Congestion
	r.MeasuredRTT, r.MeasuredBps = m.RTT.Seconds(), 8*m.Rate
	return nil
}

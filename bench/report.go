package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report says what was measured, where, and how, so that it can be read without
// the shell that ran it. Its JSON is one object with the unit of each number in
// its name; MB are millions of bytes.
type Report struct {
	Kind    string         `json:"kind"` // produce, consume or latency
	Command string         `json:"command"`
	Version string         `json:"version"`
	Commit  string         `json:"commit"`
	Started time.Time      `json:"started"`
	Machine Machine        `json:"machine"`
	Setup   map[string]any `json:"setup"` // every setting, also those not on the command line

	WarmupSeconds  float64 `json:"warmup_seconds"`
	WindowSeconds  float64 `json:"window_seconds"`
	Records        int64   `json:"records"`
	Bytes          int64   `json:"bytes"`
	Failed         int64   `json:"failed"`
	RecordsPerSec  float64 `json:"records_per_second"`
	MBPerSec       float64 `json:"mb_per_second"`
	LatencyFrom    string  `json:"latency_from,omitempty"` // due time, or sending
	Latency        *Times  `json:"latency,omitempty"`      // until acknowledged
	Lateness       *Times  `json:"lateness,omitempty"`     // of the load behind its schedule
	EndToEnd       *Times  `json:"end_to_end,omitempty"`   // until consumed
	MissingRecords int64   `json:"missing_records,omitempty"`
	TwiceRecords   int64   `json:"twice_records,omitempty"`

	Servers    *Costs            `json:"servers,omitempty"`
	Client     *Costs            `json:"client,omitempty"`
	OtherCores *float64          `json:"other_cores,omitempty"` // busy with neither servers nor client
	Device     *DeviceReport     `json:"device,omitempty"`
	Yardstick  []YardstickReport `json:"yardstick,omitempty"`
}

// Times is a Latency in milliseconds.
type Times struct {
	Count  int64   `json:"count"`
	MeanMS float64 `json:"mean_ms"`
	P50MS  float64 `json:"p50_ms"`
	P90MS  float64 `json:"p90_ms"`
	P99MS  float64 `json:"p99_ms"`
	P999MS float64 `json:"p999_ms"`
	MaxMS  float64 `json:"max_ms"`
}

// Costs is what processes used up in the window, and held at its end. A pointer
// is nil where the system does not tell.
type Costs struct {
	Processes       int      `json:"processes"`
	CPUSeconds      float64  `json:"cpu_seconds"`
	CPUMSPerMB      float64  `json:"cpu_ms_per_mb"`
	CPUUSPerRecord  float64  `json:"cpu_us_per_record"`
	RSSBytes        int64    `json:"rss_bytes"`
	PeakRSSBytes    int64    `json:"peak_rss_bytes"` // since the processes started
	WrittenBytes    *int64   `json:"written_bytes,omitempty"`
	WrittenPerByte  *float64 `json:"written_per_byte,omitempty"` // of payload
	ReadBytes       *int64   `json:"read_bytes,omitempty"`
	OpenDescriptors *int64   `json:"open_descriptors,omitempty"`
}

// DeviceReport is what a block device did in the window, for everything on it.
type DeviceReport struct {
	Name           string  `json:"name"`
	WrittenBytes   int64   `json:"written_bytes"`
	WrittenPerByte float64 `json:"written_per_byte"` // of payload
	Writes         int64   `json:"writes"`
	Flushes        *int64  `json:"flushes,omitempty"`
	ReadBytes      int64   `json:"read_bytes"`
}

// YardstickReport is a YardstickResult, and the window's rate and median as
// multiples of it.
type YardstickReport struct {
	CommitBytes int     `json:"commit_bytes"`
	Commits     int64   `json:"commits"`
	MBPerSec    float64 `json:"mb_per_second"`
	Latency     *Times  `json:"latency"`
	RateRatio   float64 `json:"rate_ratio"`          // of the run to this
	P50Ratio    float64 `json:"p50_ratio,omitempty"` // likewise
}

// times returns l in milliseconds, nil if it is empty.
func times(l Latency) *Times {
	if l.Count == 0 {
		return nil
	}
	return &Times{
		Count: l.Count, MeanMS: ms(l.Mean), P50MS: ms(l.P50), P90MS: ms(l.P90), P99MS: ms(l.P99), P999MS: ms(l.P999), MaxMS: ms(l.Max),
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// SetResult fills in what r measured. servers is how many processes were
// sampled; sampled says whether there are samples at all.
func (rep *Report) SetResult(r Result, servers int, sampled bool) {
	rep.WindowSeconds = r.Window.Seconds()
	rep.Records, rep.Bytes, rep.Failed = r.Records, r.Bytes, r.Failed
	rep.RecordsPerSec, rep.MBPerSec = r.PerSecond(r.Records), r.PerSecond(r.Bytes)/1e6
	rep.Latency, rep.Lateness = times(r.Latency), times(r.Lateness)
	if !sampled {
		return
	}
	if servers > 0 {
		rep.Servers = costs(r, servers, r.Begin.Servers, r.End.Servers)
	}
	rep.Client = costs(r, 1, r.Begin.Self, r.End.Self)
	others := (r.End.Busy - r.Begin.Busy) - (r.End.Self.CPU - r.Begin.Self.CPU) - (r.End.Servers.CPU - r.Begin.Servers.CPU)
	cores := max(0, r.PerSecond(int64(others))/float64(time.Second))
	rep.OtherCores = &cores
}

// SetDevice fills in what the device of that name did, "" if none was sampled.
func (rep *Report) SetDevice(name string, r Result) {
	if name == "" {
		return
	}
	begin, end := r.Begin.Device, r.End.Device
	rep.Device = &DeviceReport{
		Name: name, WrittenBytes: end.WrittenBytes - begin.WrittenBytes, Writes: end.Writes - begin.Writes,
		Flushes: grown(begin.Flushes, end.Flushes), ReadBytes: end.ReadBytes - begin.ReadBytes,
	}
	rep.Device.WrittenPerByte = ratio(float64(rep.Device.WrittenBytes), float64(r.Bytes))
}

// SetEndToEnd fills in what a Delivery measured beside its Result.
func (rep *Report) SetEndToEnd(d Delivered) {
	rep.EndToEnd, rep.MissingRecords, rep.TwiceRecords = times(d.EndToEnd), d.Missing, d.Twice
}

// SetYardstick compares the result, which is set already, with yardsticks.
func (rep *Report) SetYardstick(results []YardstickResult) {
	for _, y := range results {
		yr := YardstickReport{CommitBytes: y.CommitBytes, Commits: y.Commits, MBPerSec: y.MBPerSecond(), Latency: times(y.Latency)}
		yr.RateRatio = ratio(rep.MBPerSec, yr.MBPerSec)
		if rep.Latency != nil && yr.Latency != nil {
			yr.P50Ratio = ratio(rep.Latency.P50MS, yr.Latency.P50MS)
		}
		rep.Yardstick = append(rep.Yardstick, yr)
	}
}

// ratio returns a / b, 0 where there is none.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func costs(r Result, processes int, begin, end Usage) *Costs {
	cpu := end.CPU - begin.CPU
	c := &Costs{
		Processes: processes, CPUSeconds: cpu.Seconds(),
		CPUMSPerMB:     ratio(ms(cpu), float64(r.Bytes)/1e6),
		CPUUSPerRecord: ratio(float64(cpu)/float64(time.Microsecond), float64(r.Records)),
		RSSBytes:       end.RSSBytes, PeakRSSBytes: end.PeakRSSBytes,
		WrittenBytes: grown(begin.WrittenBytes, end.WrittenBytes),
		ReadBytes:    grown(begin.ReadBytes, end.ReadBytes),
	}
	if end.Files != Unknown {
		c.OpenDescriptors = &end.Files
	}
	if c.WrittenBytes != nil {
		per := ratio(float64(*c.WrittenBytes), float64(r.Bytes))
		c.WrittenPerByte = &per
	}
	return c
}

// grown returns the difference of two counters, nil if it is unknown.
func grown(begin, end int64) *int64 {
	if begin == Unknown || end == Unknown {
		return nil
	}
	d := end - begin
	return &d
}

// JSON writes the report as one line.
func (rep *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(rep)
}

// Text writes the report for people.
func (rep *Report) Text(w io.Writer) error {
	var b strings.Builder
	rep.head(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "rate\t%.1f MB/s, %.0f records/s over %.1f s after %.1f s of warm-up\n",
		rep.MBPerSec, rep.RecordsPerSec, rep.WindowSeconds, rep.WarmupSeconds)
	fmt.Fprintf(t, "records\t%d of %d bytes together, %d failed\n", rep.Records, rep.Bytes, rep.Failed)
	rep.Servers.text(t, "servers")
	rep.Client.text(t, "client")
	rep.Device.text(t)
	if rep.OtherCores != nil {
		fmt.Fprintf(t, "others\t%.2f cores of %d busy with other work; more than a few hundredths spoil the figures\n",
			*rep.OtherCores, rep.Machine.CPUs)
	}
	if rep.MissingRecords != 0 || rep.TwiceRecords != 0 {
		fmt.Fprintf(t, "delivery\t%d acknowledged records missing, %d came twice\n", rep.MissingRecords, rep.TwiceRecords)
	}
	_ = t.Flush() // into memory
	rep.table(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// head writes what the figures are of.
func (rep *Report) head(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "command\t%s\n", rep.Command)
	fmt.Fprintf(t, "build\tflotilla %s (commit %s), %s\n", rep.Version, rep.Commit, rep.Started.UTC().Format(time.RFC3339))
	m := rep.Machine
	fmt.Fprintf(t, "machine\t%d CPUs %s, %.1f GiB, %s/%s %s, load %s\n", m.CPUs, cmp.Or(m.CPUModel, "of unknown model"),
		float64(m.MemoryBytes)/(1<<30), m.OS, m.Arch, m.Kernel, cmp.Or(m.LoadAverage, "unknown"))
	var setup []string
	for _, name := range slices.Sorted(maps.Keys(rep.Setup)) {
		setup = append(setup, fmt.Sprintf("%s=%v", name, rep.Setup[name]))
	}
	fmt.Fprintf(t, "setup\t%s\n", strings.Join(setup, " "))
	_ = t.Flush() // w is memory
}

func (c *Costs) text(w io.Writer, name string) {
	if c == nil {
		return
	}
	fmt.Fprintf(w, "%s\t%.2f ms/MB of CPU (%.2f us/record, %.2f s), RSS %.0f MB, peak %.0f MB", name,
		c.CPUMSPerMB, c.CPUUSPerRecord, c.CPUSeconds, float64(c.RSSBytes)/1e6, float64(c.PeakRSSBytes)/1e6)
	if c.WrittenBytes != nil {
		fmt.Fprintf(w, ", %.1f MB of pages made dirty (%.2f per byte of payload), %.1f MB read",
			float64(*c.WrittenBytes)/1e6, *c.WrittenPerByte, float64(*c.ReadBytes)/1e6)
	}
	if c.OpenDescriptors != nil {
		fmt.Fprintf(w, ", %d descriptors", *c.OpenDescriptors)
	}
	fmt.Fprintln(w)
}

func (d *DeviceReport) text(w io.Writer) {
	if d == nil {
		return
	}
	fmt.Fprintf(w, "device\t%s wrote %.1f MB (%.2f per byte of payload) in %d requests", d.Name, float64(d.WrittenBytes)/1e6, d.WrittenPerByte, d.Writes)
	if d.Flushes != nil {
		fmt.Fprintf(w, " with %d flushes", *d.Flushes)
	}
	fmt.Fprintf(w, ", and read %.1f MB, for everything on it\n", float64(d.ReadBytes)/1e6)
}

// table writes the latencies and the yardsticks.
func (rep *Report) table(w io.Writer) {
	if rep.Latency != nil || rep.EndToEnd != nil || len(rep.Yardstick) > 0 {
		fmt.Fprintln(w)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	row := func(name string, l *Times, rest string) {
		if l == nil {
			return
		}
		if rows++; rows == 1 {
			fmt.Fprintln(t, "MILLISECONDS\tP50\tP90\tP99\tP99.9\tMAX\tMEAN\tCOUNT\t")
		}
		fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t%s\n", name, l.P50MS, l.P90MS, l.P99MS, l.P999MS, l.MaxMS, l.MeanMS, l.Count, rest)
	}
	row("acknowledged, from "+rep.LatencyFrom, rep.Latency, "")
	row("consumed, from "+rep.LatencyFrom, rep.EndToEnd, "")
	row("load behind schedule", rep.Lateness, "")
	for _, y := range rep.Yardstick {
		rest := fmt.Sprintf("%.1f MB/s; the run: %.2f of the rate", y.MBPerSec, y.RateRatio)
		if y.P50Ratio > 0 {
			rest += fmt.Sprintf(", %.2f of the p50", y.P50Ratio)
		}
		row(fmt.Sprintf("write+fdatasync of %d", y.CommitBytes), y.Latency, rest)
	}
	_ = t.Flush() // w is memory
}

// Line is p in one line.
func (p Progress) Line() string {
	perSec := func(n int64) float64 { return ratio(float64(n), p.Interval.Seconds()) }
	s := fmt.Sprintf("%4.0fs %-8s %8.1f MB/s %9.0f records/s", p.Elapsed.Seconds(), p.Phase, perSec(p.Bytes)/1e6, perSec(p.Records))
	if p.Latency.Count > 0 {
		s += fmt.Sprintf("  p50 %.2f ms  p99 %.2f ms  max %.1f ms  in flight %d", ms(p.Latency.P50), ms(p.Latency.P99), ms(p.Latency.Max), p.InFlight)
	}
	if p.Failed > 0 {
		s += fmt.Sprintf("  failed %d", p.Failed)
	}
	return s
}

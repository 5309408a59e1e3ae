package main

import (
	"bytes"
	"image/color"
	"maps"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"parley/cmd/parley-bench/load"
)

const (
	width  = 540 // in points
	height = 300
)

// Colours that most people can tell apart (Okabe and Ito); so that all can, the marks differ too.
var (
	colours = []color.Color{
		color.RGBA{0x00, 0x72, 0xb2, 0xff},
		color.RGBA{0xd5, 0x5e, 0x00, 0xff},
		color.RGBA{0x00, 0x9e, 0x73, 0xff},
		color.RGBA{0xcc, 0x79, 0xa7, 0xff},
		color.RGBA{0x8a, 0x6d, 0x00, 0xff},
	}
	marks = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, diamond{}, draw.CrossGlyph{}}

	ink  = color.Gray{0x33}
	pale = color.Gray{0xd9}
)

// svg draws the figure on a white ground, so that it can be read on a dark page too.
func (f figure) svg() ([]byte, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = f.title, f.x, f.y
	p.Title.Padding = vg.Points(10)
	dress(p)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = pale, pale
	grid.Horizontal.Width, grid.Vertical.Width = vg.Points(0.5), vg.Points(0.5)
	p.Add(grid)
	for i, l := range f.lines {
		stroke, points, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return nil, err
		}
		stroke.Color, stroke.Width = colours[i%len(colours)], vg.Points(2)
		points.Color, points.Shape, points.Radius = stroke.Color, marks[i%len(marks)], vg.Points(3.5)
		p.Add(stroke, points)
		if l.name != "" {
			p.Legend.Add(l.name, stroke, points)
		}
	}
	p.Legend.Top, p.Legend.Left = true, f.left
	p.Legend.Padding = vg.Points(3)
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(8), vg.Points(-4)
	if !f.left {
		p.Legend.XOffs = -p.Legend.XOffs
	}
	f.scale(p)

	canvas := vgsvg.New(width, height)
	whole := draw.New(canvas)
	whole.FillPolygon(color.White, []vg.Point{{}, {X: width}, {X: width, Y: height}, {Y: height}})
	p.Draw(draw.Crop(whole, 12, -24, 10, -12))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	// Who has not this very font gets one of the same width.
	return bytes.ReplaceAll(b.Bytes(), []byte(typeface+";"), []byte(typeface+",Arimo,Arial,Helvetica,sans-serif;")), nil
}

const typeface = "Liberation Sans"

func dress(p *plot.Plot) {
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for style, size := range map[*draw.TextStyle]font.Length{
		&p.Title.TextStyle: 13, &p.X.Label.TextStyle: 11, &p.Y.Label.TextStyle: 11, &p.Legend.TextStyle: 10,
		&p.X.Tick.Label: 10, &p.Y.Tick.Label: 10,
	} {
		style.Font, style.Color = font.From(sans, vg.Points(float64(size))), ink
	}
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = ink, ink
		axis.Label.Padding = vg.Points(6)
		axis.Padding = vg.Points(4)
	}
}

// scale marks the axes: across, what was measured; upwards, round figures from zero, or from a power of ten.
func (f figure) scale(p *plot.Plot) {
	measured := map[float64]bool{}
	least, most := math.Inf(1), 0.0
	for _, l := range f.lines {
		for _, point := range l.points {
			measured[point.X] = true
			least, most = min(least, point.Y), max(most, point.Y)
		}
	}
	p.X.Tick.Marker = at(slices.Sorted(maps.Keys(measured)))
	if f.logX {
		p.X.Scale = plot.LogScale{}
	}
	if !f.logY {
		p.Y.Min, p.Y.Max = 0, most*(1.1+0.06*float64(len(f.lines))) // the legend is above the lines
		p.Y.Tick.Marker = plot.TickerFunc(rounded)
		return
	}
	p.Y.Scale = plot.LogScale{}
	var ticks []float64
	for power := math.Pow10(int(math.Floor(math.Log10(least)))); power <= 10*most; power *= 10 {
		ticks = append(ticks, power, 2*power, 5*power)
	}
	ticks = slices.DeleteFunc(ticks, func(y float64) bool { return y < least/2.5 || y > most*5 })
	p.Y.Min, p.Y.Max = ticks[0], ticks[len(ticks)-1]
	p.Y.Tick.Marker = at(ticks)
}

// A diamond is a mark.
type diamond struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (diamond) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	r := style.Radius * 1.2
	c.FillPolygon(style.Color, []vg.Point{
		{X: at.X - r, Y: at.Y}, {X: at.X, Y: at.Y + r}, {X: at.X + r, Y: at.Y}, {X: at.X, Y: at.Y - r},
	})
}

// at marks values.
func at(values []float64) plot.ConstantTicks {
	ticks := make(plot.ConstantTicks, len(values))
	for i, v := range values {
		ticks[i] = plot.Tick{Value: v, Label: label(v)}
	}
	return ticks
}

// rounded marks the multiples of 1, 2 or 5 times a power of ten, about five of them.
func rounded(least, most float64) []plot.Tick {
	step := math.Pow10(int(math.Floor(math.Log10((most - least) / 4))))
	for _, more := range []float64{2, 2.5, 2} {
		if (most-least)/step > 6 {
			step *= more
		}
	}
	var values []float64
	for i := math.Ceil(least / step); i*step <= most; i++ {
		values = append(values, i*step)
	}
	return at(values)
}

func label(v float64) string {
	if v >= 1000 {
		return load.Grouped(int(v))
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

/*
 * The pictures of goshim compare's report, as SVG that stands in the page and takes its colours from there.
 *
 * Latency over percentiles has HdrHistogram's axis: each nine as wide as the one before, since what users feel is at its
 * end. Latencies are logarithmic, too, as a curve may span 50 us and 50 ms. Each round is a thin line beneath its
 * mode's: where those of two modes cross, there is no difference.
 */
#include "compare.h"

#include <math.h>
#include <stdlib.h>

enum { POINTS = 160, LEFT = 62, RIGHT = 14, TOP = 12, BOTTOM = 44 };

typedef struct Frame {
	int width, height;
	double nines, low, high; /* the axes' ends: nines of the percentile, log10 of ns */
} Frame;

static double xof(const Frame *f, double nines)
{
	return LEFT + (f->width - LEFT - RIGHT) * nines / f->nines;
}

static double yof(const Frame *f, double ns)
{
	double y = (log10(ns > 1 ? ns : 1) - f->low) / (f->high - f->low);
	return f->height - BOTTOM - (f->height - TOP - BOTTOM) * (y < 0 ? 0 : y > 1 ? 1 : y);
}

static void curve(FILE *f, const Frame *frame, const struct hist *h, const char *class, int mode)
{
	fprintf(f, "<path class=\"%s m%d\" d=\"", class, mode);
	char command = 'M';
	for (int i = 0; i <= POINTS; i++) {
		double nines = frame->nines * i / POINTS, left = pow(10, -nines);
		if (i && left * (double)h->total < 1)
			break; /* that rare there was none */
		fprintf(f, "%c%.1f %.1f", command, xof(frame, nines),
			yof(frame, (double)hist_value(h, 1 - left)));
		command = 'L';
	}
	fputs("\"/>\n", f);
}

/* Lines at 1, 2 and 5 of each decade, or at 1 alone when those are too many. */
static void horizontals(FILE *f, const Frame *frame)
{
	static const int steps[] = {1, 2, 5};
	int every = frame->high - frame->low > 2.5 ? 3 : 1;
	for (int e = (int)floor(frame->low); e <= (int)ceil(frame->high); e++) {
		for (int i = 0; i < 3; i += every) {
			double ns = steps[i] * pow(10, e);
			char text[32];
			if (log10(ns) < frame->low - 1e-9 || log10(ns) > frame->high + 1e-9)
				continue;
			fprintf(f,
				"<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
				"<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
				LEFT, frame->width - RIGHT, yof(frame, ns), yof(frame, ns),
				LEFT - 8, yof(frame, ns) + 4, shortly(ns, text, sizeof text));
		}
	}
}

static void verticals(FILE *f, const Frame *frame)
{
	static const char *const names[] = {"0%",     "90%",     "99%",      "99.9%",
					    "99.99%", "99.999%", "99.9999%", "99.99999%"};
	for (int i = 0; i <= (int)frame->nines && i < 8; i++)
		fprintf(f,
			"<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"
			"<text x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">%s</text>\n",
			xof(frame, i), xof(frame, i), TOP, frame->height - BOTTOM, xof(frame, i),
			frame->height - BOTTOM + 18,
			xof(frame, i) > frame->width - RIGHT - 24 ? "end" : "middle", names[i]);
	fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">share of the requests</text>\n",
		(LEFT + frame->width - RIGHT) / 2, frame->height - 6);
}

/* The next of 1, 2, 5, 10, ... below or above, as its logarithm. */
static double nice(double ns, bool above)
{
	static const double steps[] = {1, 2, 5, 10};
	double decade = pow(10, floor(log10(ns)));
	for (int i = 0; i < 4 && above; i++)
		if (steps[i] * decade >= ns * 0.9999)
			return log10(steps[i] * decade);
	for (int i = 3; i >= 0; i--)
		if (steps[i] * decade <= ns * 1.0001)
			return log10(steps[i] * decade);
	return log10(decade);
}

void chart(const Plan *p, FILE *f, const char *class, int width, int height)
{
	struct hist *h = calloc(MAXMODES, sizeof *h);
	Frame frame = {.width = width, .height = height};
	double low = INFINITY, high = 0, most = 10;
	if (!h)
		fail("out of memory");
	for (int i = 0; i < p->nmodes; i++) {
		totalhist(p, i, &h[i]);
		low = fmin(low, (double)hist_value(&h[i], 0.01));
		high = fmax(high, (double)h[i].max);
		most = fmax(most, (double)h[i].total);
	}
	frame.nines = fmin(7, log10(most));
	frame.low = nice(fmax(low, 1e3), false);
	frame.high = fmax(nice(fmax(high, 2e3), true), frame.low + 0.3);
	fprintf(
	    f,
	    "<svg class=\"chart %s\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"latency over "
	    "percentiles\">\n",
	    class, width, height);
	horizontals(f, &frame);
	verticals(f, &frame);
	for (int i = 0; i < p->nmodes; i++)
		for (int r = 0; r < p->rounds && p->rounds > 1; r++)
			if (p->result[i][r].hist)
				curve(f, &frame, p->result[i][r].hist, "round", i);
	for (int i = 0; i < p->nmodes; i++)
		curve(f, &frame, &h[i], "mode", i);
	fputs("</svg>\n", f);
	free(h);
}

/* A bar for each mode, of what a request takes. */
void spentchart(const Plan *p, FILE *f, const char *class, int width)
{
	static const int parts[] = {CPUREQUEST, QUEUEREQUEST, GOQUEUEREQUEST, LOCKREQUEST};
	enum { PARTS = sizeof parts / sizeof parts[0], BAR = 22, LINE = 46 };
	double total[MAXMODES] = {0}, most = 1e-9;
	char text[32];
	for (int i = 0; i < p->nmodes; i++) {
		for (int k = 0; k < PARTS; k++)
			total[i] += fmax(0, summary(p, i, parts[k]).median);
		most = fmax(most, total[i]);
	}
	fprintf(f,
		"<svg class=\"chart %s\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"what a "
		"request takes\">\n",
		class, width, LINE * p->nmodes);
	for (int i = 0; i < p->nmodes; i++) {
		double x = 0, scale = (width - 70) / most;
		fprintf(f, "<text x=\"0\" y=\"%d\">%s</text>\n", LINE * i + 14, p->modes[i]->name);
		for (int k = 0; k < PARTS; k++) {
			double v = summary(p, i, parts[k]).median;
			if (!(v > 0))
				continue;
			fprintf(f,
				"<rect class=\"p%d\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
				"height=\"%d\"><title>%s: %s</title></rect>\n",
				k, x, LINE * i + 20, v * scale, BAR, metrics[parts[k]].name,
				figure(v, text, sizeof text));
			x += v * scale;
		}
		fprintf(f, "<text x=\"%.1f\" y=\"%d\">%s us</text>\n", x + 6, LINE * i + 36,
			figure(total[i], text, sizeof text));
	}
	fputs("</svg>\n", f);
}

/* Each round a dot, each mode a line, its median a stroke: from the least to the most of all. */
void strip(const Plan *p, FILE *f, int metric)
{
	enum { WIDTH = 240, LINE = 14, EDGE = 8 };
	double low = INFINITY, high = -INFINITY;
	char text[32];
	for (int i = 0; i < p->nmodes; i++) {
		Summary s = summary(p, i, metric);
		low = s.n ? fmin(low, s.min) : low;
		high = s.n ? fmax(high, s.max) : high;
	}
	double span = high > low ? high - low : 1;
	fprintf(f,
		"<svg class=\"strip\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"rounds\">\n",
		WIDTH, LINE * p->nmodes);
	for (int i = 0; i < p->nmodes; i++) {
		Summary s = summary(p, i, metric);
		double y = LINE * (i + 0.5), scale = (WIDTH - 2 * EDGE) / span;
		fprintf(f, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
			EDGE, WIDTH - EDGE, y, y);
		for (int r = 0; r < p->rounds; r++) {
			double v = p->result[i][r].value[metric];
			if (isfinite(v))
				fprintf(f,
					"<circle class=\"m%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\">"
					"<title>%s, round %d: %s</title></circle>\n",
					i, EDGE + (v - low) * scale, y, p->modes[i]->name, r + 1,
					figure(v, text, sizeof text));
		}
		if (s.n > 1)
			fprintf(
			    f,
			    "<rect class=\"m%d\" x=\"%.1f\" y=\"%.1f\" width=\"2.4\" height=\"%d\"/>\n",
			    i, EDGE + (s.median - low) * scale - 1.2, y - 6.5, 13);
	}
	fputs("</svg>", f);
}

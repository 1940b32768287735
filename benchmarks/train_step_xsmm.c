/* One epoch of training in C on libxsmm's generated matrix products: the baseline an expert would write by hand.
 *
 * A ReLU net, softmax cross-entropy, Adam, float32. Where the time goes, and what is done about it:
 *
 * - A bias is one more row of its weights, and an input has one more column, of ones: the products give biases and
 *   their gradients without passes of their own.
 * - Products go block by block: a block of weights stays in the first cache while the batch passes.
 * - A block of a weight's gradient goes from the product to Adam while it is in the first cache, and is never stored
 *   in full. The transposed weights that the backward pass wants are renewed there, too.
 * - The rows of the next batch are fetched while the first layer is updated.
 * - Rows are padded to whole vectors, so that no loop over activations has a remainder.
 * - Each thread has its rows of the batch on the way forward and back, and its blocks of the weights in the update:
 *   two barriers a step.
 *
 * benchmarks/xsmm.py compiles it and calls it. */
#include <immintrin.h>
#include <libxsmm.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 8, THREADS = 16, LANES = 16, WIDE = 64, DEEP = 128, CELLS = 4096 };

typedef libxsmm_smmfunction product;

/* A product in blocks: [the last block of the output's width][the last block of the depth][adds to its output] */
typedef struct {
  int width, depth, wide, deep;
  product kernel[2][2][2];
} blocks;

/* What is generated for one number of rows. */
typedef struct {
  int rows;
  blocks forward[LAYERS][2], backward[LAYERS][2]; /* a thread has share or share + 1 rows */
  product gradient[LAYERS][2][2];                 /* [last block of outputs][last block of inputs] */
} plan;

typedef struct {
  int layers, sizes[LAYERS + 1], threads, batch, deep[LAYERS], wide[LAYERS];
  double rate, beta_1, beta_2;
  float epsilon;
  int64_t iterations, capacity;
  float *weights[LAYERS], *first[LAYERS], *second[LAYERS], *transposed[LAYERS];
  float *inputs[LAYERS + 1], *errors[LAYERS + 1]; /* of a layer: rows with a one; rows of d loss / d z */
  int32_t *order;
  uint64_t random;
  plan whole, rest;
} net;

static int padded(int n) { return (n + LANES - 1) / LANES * LANES; }
static int least(int a, int b) { return a < b ? a : b; }

static float *zeros(size_t count) {
  size_t bytes = (count * sizeof(float) + 4095) / 4096 * 4096;
  float *made = aligned_alloc(4096, bytes);
  if (made) memset(made, 0, bytes);
  return made;
}

/* Equal blocks of at most `most`. */
static int block(int whole, int most) { return (whole + (whole + most - 1) / most - 1) / ((whole + most - 1) / most); }

static product generate(int m, int n, int k, int lda, int ldb, int ldc, int adds, int transposed) {
  float one = 1, beta = adds ? 1 : 0;
  int flags = transposed ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE, prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
  return libxsmm_smmdispatch(m, n, k, &lda, &ldb, &ldc, &one, &beta, &flags, &prefetch);
}

static int generate_blocks(blocks *b, int rows, int width, int depth, int lda, int ldb, int ldc) {
  b->width = width, b->depth = depth;
  b->wide = least(width, WIDE), b->deep = block(depth, DEEP);
  int last_width = width - (width - 1) / b->wide * b->wide, last_depth = depth - (depth - 1) / b->deep * b->deep;
  for (int m = 0; m < 2; m++)
    for (int k = 0; k < 2; k++)
      for (int adds = 0; adds < 2; adds++) {
        product made = generate(m ? last_width : b->wide, rows, k ? last_depth : b->deep, lda, ldb, ldc, adds, 0);
        if (!made) return 0;
        b->kernel[m][k][adds] = made;
      }
  return 1;
}

static void multiply(const blocks *b, const float *left, int lda, const float *right, float *out) {
  for (int m = 0; m < b->width; m += b->wide)
    for (int k = 0; k < b->depth; k += b->deep)
      b->kernel[m + b->wide >= b->width][k + b->deep >= b->depth][k > 0](left + (size_t)k * lda + m, right + k, out + m);
}

static int generate_plan(const net *n, plan *p, int rows) {
  if (p->rows == rows) return 1;
  int share = rows / n->threads;
  for (int i = 0; i < n->layers; i++) {
    int in = n->sizes[i], out = n->sizes[i + 1], ld_in = padded(in + 1), ld_out = padded(out + 1);
    for (int more = 0; more < 2; more++) {
      if (!(share + more)) continue;
      if (!generate_blocks(&p->forward[i][more], share + more, out, in + 1, out, ld_in, ld_out)) return 0;
      if (i && !generate_blocks(&p->backward[i][more], share + more, in, out, in, ld_out, ld_in)) return 0;
    }
    int wide = n->wide[i], deep = n->deep[i], last_wide = out - (out - 1) / wide * wide, last_deep = in - in / deep * deep + 1;
    for (int m = 0; m < 2; m++)
      for (int k = 0; k < 2; k++) {
        product made = generate(m ? last_wide : wide, k ? last_deep : deep, rows, ld_out, ld_in, m ? last_wide : wide, 0, 1);
        if (!made) return 0;
        p->gradient[i][m][k] = made;
      }
  }
  p->rows = rows;
  return 1;
}

net *xsmm_new(int layers, const int *sizes, double rate, double beta_1, double beta_2, double epsilon, int threads, uint64_t seed) {
  net *n = calloc(1, sizeof(net));
  if (!n || layers > LAYERS || threads > THREADS) return NULL;
  libxsmm_init();
  n->layers = layers, n->threads = threads, n->random = seed * 2 + 88172645463325253ull;
  n->rate = rate, n->beta_1 = beta_1, n->beta_2 = beta_2, n->epsilon = (float)epsilon;
  memcpy(n->sizes, sizes, (layers + 1) * sizeof(int));
  for (int i = 0; i < layers; i++) {
    int in = sizes[i], out = sizes[i + 1];
    size_t cells = (size_t)(in + 1) * out + LANES;
    n->wide[i] = out <= 2 * WIDE ? out : WIDE; /* a narrow layer's rows stay together */
    n->deep[i] = block(in + 1, CELLS / n->wide[i]);
    n->weights[i] = zeros(cells), n->first[i] = zeros(cells), n->second[i] = zeros(cells), n->transposed[i] = zeros(cells);
    if (!n->weights[i] || !n->first[i] || !n->second[i] || !n->transposed[i]) return NULL;
  }
  return n;
}

/* Weights and then the bias, of one layer. */
float *xsmm_parameters(net *n, int layer) { return n->weights[layer]; }

static int make_room(net *n, int64_t rows, int batch) {
  if (rows > n->capacity) {
    free(n->order);
    n->order = malloc(rows * sizeof(int32_t));
    n->capacity = rows;
  }
  for (int i = 0; batch > n->batch && i <= n->layers; i++) {
    int ld = padded(n->sizes[i] + 1);
    free(n->inputs[i]), free(n->errors[i]);
    n->inputs[i] = zeros((size_t)batch * ld), n->errors[i] = zeros((size_t)batch * ld);
    if (!n->inputs[i] || !n->errors[i]) return 0;
    for (int b = 0; b < batch; b++) {
      n->inputs[i][(size_t)b * ld + n->sizes[i]] = 1;
      for (int c = n->sizes[i]; i == n->layers && c < ld; c++) n->inputs[i][(size_t)b * ld + c] = -1e30f;
    }
  }
  n->batch = batch > n->batch ? batch : n->batch;
  return n->order && generate_plan(n, &n->whole, batch) && (rows % batch == 0 || generate_plan(n, &n->rest, rows % batch));
}

static void shuffle(net *n, int64_t rows) {
  uint64_t s = n->random;
  for (int64_t i = rows - 1; i > 0; i--) {
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    int64_t j = ((s >> 32) * (uint64_t)(i + 1)) >> 32;
    int32_t kept = n->order[i];
    n->order[i] = n->order[j], n->order[j] = kept;
  }
  n->random = s;
}

#ifdef __AVX512F__
/* Sixteen rows of at most sixteen columns, each way. */
static void transpose_square(const float *from, int ld_from, int rows, int columns, float *to, int ld_to) {
  __mmask16 part = (__mmask16)((1u << columns) - 1), kept = (__mmask16)((1u << rows) - 1);
  __m512 r[16], t[16];
  for (int i = 0; i < 16; i++) r[i] = i < rows ? _mm512_maskz_loadu_ps(part, from + (size_t)i * ld_from) : _mm512_setzero_ps();
  for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44), r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44), r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; i++) r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88), r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
  for (int i = 0; i < 16; i++)
    if (i < columns) _mm512_mask_storeu_ps(to + (size_t)i * ld_to, kept, r[i]);
}
#else
static void transpose_square(const float *from, int ld_from, int rows, int columns, float *to, int ld_to) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) to[(size_t)j * ld_to + i] = from[(size_t)i * ld_from + j];
}
#endif

static void transpose(const float *from, int ld_from, int rows, int columns, float *to, int ld_to) {
  for (int i = 0; i < rows; i += 16)
    for (int j = 0; j < columns; j += 16)
      transpose_square(from + (size_t)i * ld_from + j, ld_from, least(16, rows - i), least(16, columns - j), to + (size_t)j * ld_to + i, ld_to);
}

/* e to the x for x <= 0, to float32's last bits. */
static inline float exponential(float x) {
  x = x < -87.f ? -87.f : x;
  float whole = rintf(x * 1.44269504f);
  float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float e = 1.9875691500e-4f;
  e = e * r + 1.3981999507e-3f, e = e * r + 8.3334519073e-3f, e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f, e = e * r + 5.0000001201e-1f, e = e * r * r + r + 1.f;
  union { float f; int32_t i; } scaled = {e};
  scaled.i += (int32_t)whole << 23;
  return scaled.f;
}

/* Logits (padded with numbers that have no exponential) to d loss / d logits; returns the sum of the losses. */
static float loss(const float *restrict logits, float *restrict errors, int ld, int from, int to, const int64_t *y,
                  const int32_t *order, float scale, float *restrict sums) {
  float total = 0;
  for (int b = from; b < to; b++) {
    const float *restrict z = logits + (size_t)b * ld;
    float *restrict e = errors + (size_t)b * ld, top = -1e30f, sum = 0;
    int label = (int)y[order[b]];
    for (int c = 0; c < ld; c++) top = z[c] > top ? z[c] : top;
    for (int c = 0; c < ld; c++) e[c] = exponential(z[c] - top), sum += e[c];
    float factor = scale / sum;
    for (int c = 0; c < ld; c++) e[c] = e[c] * factor - (c == label ? scale : 0.f);
    sums[b] = sum;
    total += top - z[label];
  }
  for (int b = from; b < to; b++) total += logf(sums[b]);
  return total;
}

static void rectify(float *restrict a, size_t count) {
  for (size_t k = 0; k < count; k++) a[k] = a[k] > 0 ? a[k] : 0;
}

static void rectify_errors(const float *restrict a, float *restrict d, size_t count) {
  for (size_t k = 0; k < count; k++) d[k] = a[k] > 0 ? d[k] : 0;
}

static inline void adam(const float *restrict g, float *restrict w, float *restrict m, float *restrict v, int count,
                        float new_1, float new_2, float rate, float epsilon) {
  for (int k = 0; k < count; k++) {
    float first = m[k] + new_1 * (g[k] - m[k]), second = v[k] + new_2 * (g[k] * g[k] - v[k]);
    m[k] = first, v[k] = second;
    w[k] -= rate * first / (sqrtf(second) + epsilon);
  }
}

/* The blocks of a layer's weights that are this thread's: gradient, Adam, transposed weights, the next batch's rows. */
static void update(const net *n, const plan *p, int i, int thread, float rate, float *restrict g, const float *x,
                   const int32_t *next) {
  int in = n->sizes[i], out = n->sizes[i + 1], rows = in + 1, wide = n->wide[i], deep = n->deep[i], turn = 0;
  float new_1 = (float)(1 - n->beta_1), new_2 = (float)(1 - n->beta_2);
  for (int k = 0; k < rows; k += deep)
    for (int m = 0; m < out; m += wide) {
      if (turn++ % n->threads != thread) continue;
      int last_m = m + wide >= out, last_k = k + deep >= rows, height = last_k ? rows - k : deep;
      int width = last_m ? out - m : wide;
      size_t at = (size_t)k * out + m;
      float *w = n->weights[i] + at;
      if (next && !m)
        for (int b = 0; b < p->rows; b++)
          for (int line = k; line < least(k + height, in); line += LANES)
            __builtin_prefetch(x + (size_t)next[b] * in + line, 0, 2);
      p->gradient[i][last_m][last_k](n->errors[i + 1] + m, n->inputs[i] + k, g);
      if (width == out) /* one piece; the last one ends in padding */
        adam(g, w, n->first[i] + at, n->second[i] + at, last_k ? padded(height * out) : height * out,
             new_1, new_2, rate, n->epsilon);
      else
        for (int r = 0; r < height; r++)
          adam(g + (size_t)r * width, w + (size_t)r * out, n->first[i] + at + (size_t)r * out,
               n->second[i] + at + (size_t)r * out, width, new_1, new_2, rate, n->epsilon);
      if (i) transpose(w, out, least(height, in - k), width, n->transposed[i] + (size_t)m * in + k, in);
    }
}

static void gather(const net *n, const float *x, const int32_t *rows, int from, int to) {
  int in = n->sizes[0], ld = padded(in + 1);
  for (int b = from; b < to; b++) {
    const float *restrict source = x + (size_t)rows[b] * in;
    float *restrict target = n->inputs[0] + (size_t)b * ld;
    if (in >= 256)
      memcpy(target, source, in * sizeof(float));
    else
      for (int k = 0; k < in; k++) target[k] = source[k];
  }
}

/* One thread's part of an epoch; the sum of its rows' losses. */
static double run(net *n, const float *x, const int64_t *y, int64_t rows, int batch, int thread, float *g, float *sums) {
  double total = 0;
  int last = n->layers - 1;
  int64_t t = n->iterations;
  for (int64_t start = 0; start < rows; start += batch) {
    int count = least(batch, (int)(rows - start)), share = count / n->threads;
    const plan *p = count == batch ? &n->whole : &n->rest;
    int from = thread * share + least(thread, count % n->threads), more = thread < count % n->threads;
    int to = from + share + more;
    const int32_t *order = n->order + start, *next = start + 2 * batch <= rows ? order + batch : NULL;
    if (to > from) {
      gather(n, x, order, from, to);
      for (int i = 0; i <= last; i++) {
        int ld_in = padded(n->sizes[i] + 1), ld = padded(n->sizes[i + 1] + 1);
        float *a = n->inputs[i + 1] + (size_t)from * ld;
        multiply(&p->forward[i][more], n->weights[i], n->sizes[i + 1], n->inputs[i] + (size_t)from * ld_in, a);
        if (i < last) rectify(a, (size_t)(to - from) * ld);
      }
      total += loss(n->inputs[last + 1], n->errors[last + 1], padded(n->sizes[last + 1] + 1), from, to, y, order,
                    1.f / count, sums);
      for (int i = last; i > 0; i--) {
        int ld_out = padded(n->sizes[i + 1] + 1), ld = padded(n->sizes[i] + 1);
        float *d = n->errors[i] + (size_t)from * ld;
        multiply(&p->backward[i][more], n->transposed[i], n->sizes[i], n->errors[i + 1] + (size_t)from * ld_out, d);
        rectify_errors(n->inputs[i] + (size_t)from * ld, d, (size_t)(to - from) * ld);
      }
    }
    t++;
    float rate = (float)(n->rate * sqrt(1 - pow(n->beta_2, (double)t)) / (1 - pow(n->beta_1, (double)t)));
    if (n->threads > 1) {
#pragma omp barrier
    }
    for (int i = last; i >= 0; i--) update(n, p, i, thread, rate, g, x, i ? NULL : next);
    if (n->threads > 1) {
#pragma omp barrier
    }
  }
  return total;
}

/* Train over the rows once; the mean loss, or -1 where there is no memory or libxsmm makes no kernel. */
double xsmm_epoch(net *n, const float *x, const int64_t *y, int64_t rows, int batch, int shuffled) {
  if (batch > rows) batch = (int)rows;
  if (!make_room(n, rows, batch)) return -1;
  for (int64_t i = 0; i < rows; i++) n->order[i] = (int32_t)i;
  if (shuffled) shuffle(n, rows);
  for (int i = 1; i < n->layers; i++) /* the weights may have been set */
    transpose(n->weights[i], n->sizes[i + 1], n->sizes[i], n->sizes[i + 1], n->transposed[i], n->sizes[i]);
  double total = 0;
#pragma omp parallel num_threads(n->threads) reduction(+ : total)
  {
    unsigned kept = _mm_getcsr();
    _mm_setcsr(kept | 0x8040); /* denormals are zero */
    float *g = zeros(CELLS + 2 * WIDE), *sums = zeros(batch);
    total += run(n, x, y, rows, batch, omp_get_thread_num(), g, sums);
    free(g), free(sums);
    _mm_setcsr(kept);
  }
  n->iterations += (rows + batch - 1) / batch;
  return total / rows;
}

/* The element-wise work of recurrences, each step in one pass; `_compiled.py` calls this.

   All arrays are float32 without gaps, [time][rows][width] unless said otherwise, those of states with one more
   step in front; those that are written overlap with no other. Nothing is allocated or kept. The inner loops
   become vector instructions: they have no branches and no calls. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* 1 / (1 + exp(-x)), within 3e-7. exp(-x) = 2^n 2^f, |f| <= 1/2, 2^f by its series. Keeps NaN. */
static inline float sigmoid(float x) {
    float t = x * -1.44269504f;
    t = t > 126.0f ? 126.0f : t;
    t = t < -126.0f ? -126.0f : t;
    float n = rintf(t), f = t - n;
    float p = 1.52527338e-5f;
    p = p * f + 1.54035304e-4f;
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return 1.0f / (1.0f + p * scale);
}

/* Step t of an LSTM. arrays: gates [..][4][width] (input, forget, twice the cell's, output: sums come in, their
   sigmoids go out), states of the cell, tanh of the cell, hidden states. */
void lstm_step(float *const *arrays, int64_t rows, int64_t width, int64_t t) {
    int64_t size = rows * width;
    float *all = arrays[0] + 4 * size * t, *tanh_c = arrays[2] + size * t, *h = arrays[3] + size * (t + 1);
    const float *before = arrays[1] + size * t;
    float *after = arrays[1] + size * (t + 1);
    for (int64_t row = 0; row < rows; row++) {
        float *g = all + 4 * width * row;
        #pragma omp simd
        for (int64_t k = 0; k < 4 * width; k++) g[k] = sigmoid(g[k]);
        #pragma omp simd
        for (int64_t k = 0; k < width; k++) {
            int64_t at = width * row + k;
            float c = g[width + k] * before[at] + g[k] * (2.0f * g[2 * width + k] - 1.0f);
            float squashed = 2.0f * sigmoid(2.0f * c) - 1.0f;
            after[at] = c;
            tanh_c[at] = squashed;
            h[at] = g[3 * width + k] * squashed;
        }
    }
}

/* Step t from behind. arrays: gates, states of the cell, tanh of the cell, as above; gradients of the hidden
   state, of the cell state by itself (completed here) and of the sums [..][4][width], the cell's not doubled
   (written here); [rows][width] what the step behind adds to the cell's, then what this one adds to that before. */
void lstm_step_back(float *const *arrays, int64_t rows, int64_t width, int64_t t) {
    int64_t size = rows * width;
    const float *gates = arrays[0] + 4 * size * t, *before = arrays[1] + size * t;
    const float *tanh_c = arrays[2] + size * t, *dh = arrays[3] + size * t;
    float *dc = arrays[4] + size * t, *d_gates = arrays[5] + 4 * size * t, *carried = arrays[6];
    for (int64_t row = 0; row < rows; row++) {
        const float *i = gates + 4 * width * row, *f = i + width, *r = f + width, *o = r + width;
        float *d = d_gates + 4 * width * row;
        #pragma omp simd
        for (int64_t k = 0; k < width; k++) {
            int64_t at = width * row + k;
            float g = 2.0f * r[k] - 1.0f, th = tanh_c[at];
            float cell = dc[at] + carried[at] + dh[at] * o[k] * (1.0f - th * th);
            dc[at] = cell;
            carried[at] = cell * f[k];
            d[k] = cell * g * i[k] * (1.0f - i[k]);
            d[width + k] = cell * before[at] * f[k] * (1.0f - f[k]);
            d[2 * width + k] = cell * i[k] * (1.0f - g * g);
            d[3 * width + k] = dh[at] * th * o[k] * (1.0f - o[k]);
        }
    }
}

/* Step t of a gated memory. arrays: gates [..][2][width] (keep, add: sums come in, their sigmoids go out), what
   is added, states of the memory. */
void memory_step(float *const *arrays, int64_t rows, int64_t width, int64_t t) {
    int64_t size = rows * width;
    float *gates = arrays[0] + 2 * size * t, *after = arrays[2] + size * (t + 1);
    const float *new = arrays[1] + size * t, *before = arrays[2] + size * t;
    for (int64_t row = 0; row < rows; row++) {
        float *keep = gates + 2 * width * row, *add = keep + width;
        #pragma omp simd
        for (int64_t k = 0; k < width; k++) {
            int64_t at = width * row + k;
            keep[k] = sigmoid(keep[k]);
            add[k] = sigmoid(add[k]);
            after[at] = keep[k] * before[at] + add[k] * new[at];
        }
    }
}

/* Step t from behind. arrays: gates, what is added, states, as above; gradients of the memory without the share
   that the step behind keeps (completed here) and of the sums [..][2][width] (written here); [rows][width] that
   share, then the one that this step keeps of the step before. */
void memory_step_back(float *const *arrays, int64_t rows, int64_t width, int64_t t) {
    int64_t size = rows * width;
    const float *gates = arrays[0] + 2 * size * t, *new = arrays[1] + size * t, *before = arrays[2] + size * t;
    float *du = arrays[3] + size * t, *d_gates = arrays[4] + 2 * size * t, *carried = arrays[5];
    for (int64_t row = 0; row < rows; row++) {
        const float *keep = gates + 2 * width * row, *add = keep + width;
        float *d = d_gates + 2 * width * row;
        #pragma omp simd
        for (int64_t k = 0; k < width; k++) {
            int64_t at = width * row + k;
            float grad = du[at] + carried[at];
            du[at] = grad;
            carried[at] = grad * keep[k];
            d[k] = grad * before[at] * keep[k] * (1.0f - keep[k]);
            d[width + k] = grad * new[at] * add[k] * (1.0f - add[k]);
        }
    }
}

/* All steps of u_t = keep_t u_{t-1} + add_t. arrays: keep, add, states of u. */
void scan(float *const *arrays, int64_t steps, int64_t size) {
    const float *keep = arrays[0], *add = arrays[1];
    float *u = arrays[2];
    #pragma omp simd
    for (int64_t k = 0; k < size; k++) u[k] = 0.0f;
    for (int64_t t = 0; t < steps; t++) {
        const float *before = u + size * t;
        float *after = u + size * (t + 1);
        #pragma omp simd
        for (int64_t k = 0; k < size; k++) after[k] = keep[size * t + k] * before[k] + add[size * t + k];
    }
}

/* The same from behind. arrays: keep, states of u; gradients of u by itself, then of add; of keep. */
void scan_back(float *const *arrays, int64_t steps, int64_t size) {
    const float *keep = arrays[0], *u = arrays[1];
    float *du = arrays[2], *d_keep = arrays[3];
    for (int64_t t = steps - 1; t >= 0; t--) {
        float *now = du + size * t;
        if (t + 1 < steps) {
            const float *later = now + size, *kept = keep + size * (t + 1);
            #pragma omp simd
            for (int64_t k = 0; k < size; k++) now[k] += later[k] * kept[k];
        }
        #pragma omp simd
        for (int64_t k = 0; k < size; k++) d_keep[size * t + k] = now[k] * u[size * t + k];
    }
}

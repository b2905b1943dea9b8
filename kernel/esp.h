#ifndef KERNEL_ESP_H
#define KERNEL_ESP_H

#endif
